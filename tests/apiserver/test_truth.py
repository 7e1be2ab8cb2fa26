"""Events of a life with failures, and the hints for real rejections by the API server."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devcluster.standalone import ControlPlane, free_ports
from tests.apiserver.cluster import Cluster, Kubelet, Raw
from tests.apiserver.conftest import StartOperator
from tests.apiserver.finetunejobs import MESSAGES, prepared, started, tune
from tests.apiserver.operator_process import USER


def test_each_event_of_a_life_with_failures_and_restarts_is_sent_once(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    """Unschedulable, out of memory, suspended, resumed, succeeded; the operator is killed three times."""
    operators = [start_operator("operator-0")]

    def restart() -> None:
        operators[-1].stop(signal.SIGKILL)
        operators.append(start_operator(f"operator-{len(operators)}"))
        cluster.until("the next operator leads", operators[-1].leads)
        time.sleep(1)  # it reconciles every resource

    def until_reason(reason: str) -> None:
        cluster.until(
            reason, lambda: (cluster.get("FineTuneJob", "support") or {}).get("status", {}).get("reason") == reason
        )

    tune(cluster, "support")
    kubelet = Kubelet(cluster, cluster.pod_of("support-tune-1"))
    kubelet.unschedulable("0/3 nodes are available: 3 Insufficient cpu.")
    until_reason("Unschedulable")
    restart()
    kubelet.bind()
    kubelet.runs("train")
    cluster.until_phase("FineTuneJob", "support", "Running")
    kubelet.ends(MESSAGES, {"train": {"exitCode": 137, "reason": "OOMKilled"}})
    until_reason("BackOff")
    restart()
    cluster.patch("FineTuneJob", "support", {"spec": {"suspend": True}})
    attempt = cluster.until_phase("FineTuneJob", "support", "Suspended")["status"]["attempt"]
    cluster.patch("FineTuneJob", "support", {"spec": {"suspend": False}})
    second = Kubelet(cluster, cluster.pod_of(f"support-tune-{attempt + 1}"))
    second.bind()
    second.runs("fetch")
    second.runs("train")
    cluster.until_phase("FineTuneJob", "support", "Running")
    second.ends(MESSAGES)
    cluster.until_phase("FineTuneJob", "support", "Succeeded")
    restart()

    cluster.until("the last Event", lambda: "Completed" in {event["reason"] for event in story(cluster)})
    events = story(cluster)
    reasons = [event["reason"] for event in events]
    once = ("Unschedulable", "OOMKilled", "Suspended", "Completed")
    assert {reason: reasons.count(reason) for reason in once} == dict.fromkeys(once, 1), reasons
    assert reasons.count("Running") == 2, "each attempt runs once"
    assert all(reason != before for reason, before in zip(reasons[1:], reasons, strict=False)), reasons
    assert all(event.get("count", 1) == 1 for event in events)
    described = cluster.kubectl("--namespace", cluster.namespace, "describe", "finetunejob/support")
    assert "lower spec.resources.cpu" in described
    for operator in operators:
        operator.may_complain = True


def story(cluster: Cluster) -> list[Raw]:
    """The Events about the resource, oldest first."""
    return cluster.events("FineTuneJob", "support")


def trouble(cluster: Cluster, name: str = "support") -> Raw:
    """The status of a job, as soon as it reports an obstacle."""
    return cluster.until(
        "lastFailure", lambda: ((cluster.get("FineTuneJob", name) or {}).get("status") or {}).get("lastFailure")
    )


MISSING: dict[str, tuple[Raw, str]] = {
    "account": ({"serviceAccountName": "tuner"}, "create ServiceAccount"),
    "priority": ({"priorityClassName": "urgent"}, "urgent does not exist"),
    "runtime": ({"runtimeClassName": "gvisor"}, "gvisor does not exist"),
}


def test_the_hint_names_what_spec_pod_refers_to_and_does_not_exist(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    policy = {"serviceAccounts": ["*"], "priorityClasses": ["*"], "runtimeClasses": ["*"]}
    start_operator(podPolicy=policy)
    for name, (pod, _) in MISSING.items():
        tune(cluster, name, pod=pod)
    for name, (_, hint) in MISSING.items():
        failure = trouble(cluster, name)
        assert failure["class"] == "PodRefused"
        assert hint in failure["hint"], failure


@pytest.fixture
def scheduler(plane: ControlPlane, tmp_path: Path) -> Iterator[None]:
    """A real scheduler, which the other tests of this tier do without."""
    [port] = free_ports(1)
    command = [plane.program("kube-scheduler"), "--kubeconfig", str(plane.kubeconfig), "--leader-elect=false"]
    command += ["--bind-address=127.0.0.1", f"--secure-port={port}"]
    with (tmp_path / "scheduler.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        yield
        process.terminate()
        process.wait(timeout=30)


NOT_READY = "node.kubernetes.io/not-ready"
"""The taint of a new node, until the node controller finds it ready."""


@contextmanager
def node(cluster: Cluster, name: str, **spec: Any) -> Iterator[None]:
    """A small node that is Ready. Its label `pool` is its name."""
    path = f"/api/v1/nodes/{name}"
    metadata = {"name": name, "labels": {"pool": name}}
    cluster.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec})
    capacity = {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "10Gi", "pods": "10"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    status = {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}
    cluster.request("PATCH", f"{path}/status", {"status": status}, content_type="application/merge-patch+json")
    cluster.until("the node is ready", lambda: NOT_READY not in json.dumps(cluster.request("GET", path)["spec"]))
    try:
        yield
    finally:
        cluster.request("DELETE", path)


UNSCHEDULABLE: dict[str, tuple[Raw, str]] = {
    "cpu": ({"resources": {"cpu": "64"}}, "lower spec.resources.cpu"),
    "memory": ({"resources": {"memory": "900Gi"}}, "lower spec.resources.memory"),
    "disk": ({"resources": {"ephemeralStorage": "900Gi"}}, "lower spec.resources.ephemeralStorage"),
    "device": ({"resources": {"accelerator": "nvidia"}}, "free or add a node with nvidia.com/gpu"),
    "selector": ({"pod": {"nodeSelector": {"pool": "none"}}}, "spec.pod.nodeSelector"),
    "taint": ({"pod": {"nodeSelector": {"pool": "tainted"}}}, "spec.pod.tolerations"),
    "cordon": ({"pod": {"nodeSelector": {"pool": "cordoned"}}}, "kubectl uncordon"),
}


@pytest.mark.usefixtures("scheduler")
def test_messages_of_the_scheduler_are_interpreted(cluster: Cluster, start_operator: StartOperator) -> None:
    start_operator()
    taint = {"key": "example.com/reserved", "effect": "NoSchedule"}
    with (
        node(cluster, "plain"),
        node(cluster, "tainted", taints=[taint]),
        node(cluster, "cordoned", unschedulable=True),
    ):
        for name, (spec, _) in UNSCHEDULABLE.items():
            tune(cluster, name, **spec)
        prepared(cluster, "device")
        for name, (_, hint) in UNSCHEDULABLE.items():
            failure = trouble(cluster, name)
            assert failure["class"] == "Unschedulable"
            assert hint in failure["hint"], failure
            assert "preemption" not in failure["message"].lower()


@dataclass(frozen=True)
class Bound:
    """A ResourceQuota (`hard`) or LimitRange (`limit`), a spec that it rejects, text of the hint, and the spec that
    follows the hint."""

    before: Raw
    hint: str
    after: Raw
    hard: Raw | None = None
    limit: Raw | None = None


def _resources(**values: object) -> Raw:
    return {"resources": values}


BOUNDS: dict[str, Bound] = {
    "maximum of memory": Bound(
        _resources(memory="4Gi"),
        "set spec.resources.memory to 1Gi at most",
        _resources(memory="1Gi"),
        limit={"max": {"memory": "1Gi"}},
    ),
    "minimum of memory": Bound(
        _resources(memory="512Mi"),
        "set spec.resources.memory to 1Gi at least",
        _resources(memory="1Gi"),
        limit={"min": {"memory": "1Gi"}},
    ),
    "minimum of cores": Bound(
        {}, "set spec.resources.cpu to 1 at least", _resources(cpu="1"), limit={"min": {"cpu": "1"}}
    ),
    "maximum of cores": Bound(
        _resources(cpu="2"), "set spec.resources.cpu to 1 at most", _resources(cpu="1"), limit={"max": {"cpu": "1"}}
    ),
    "default limit of cores": Bound(
        _resources(cpu="2"),
        "set spec.resources.cpu to 500m at most",
        _resources(cpu="500m"),
        limit={"default": {"cpu": "500m"}},
    ),
    "ratio of cores": Bound(
        {},
        "raise spec.resources.cpu",
        _resources(cpu="2"),
        limit={"default": {"cpu": "4"}, "maxLimitRequestRatio": {"cpu": "2"}},
    ),
    "ratio of memory": Bound(
        {},
        "set spec.resources.memory",
        _resources(memory="1Gi"),
        limit={
            "default": {"memory": "2Gi"},
            "defaultRequest": {"memory": "1Gi"},
            "maxLimitRequestRatio": {"memory": "1"},
        },
    ),
    "all containers of a pod": Bound(
        _resources(memory="4Gi"),
        "lower spec.resources.memory",
        _resources(memory="1Gi"),
        limit={"type": "Pod", "max": {"memory": "2Gi"}},
    ),
    "quota of memory that the pod does not set": Bound(
        {}, "counts limits.memory: set spec.resources.memory", _resources(memory="1Gi"), hard={"limits.memory": "2Gi"}
    ),
    "quota of memory": Bound(
        _resources(memory="4Gi"),
        "lower spec.resources.memory",
        _resources(memory="2Gi"),
        hard={"requests.memory": "2Gi"},
    ),
    "quota of cores": Bound(
        _resources(cpu="2"), "lower spec.resources.cpu", _resources(cpu="1"), hard={"requests.cpu": "1"}
    ),
    "quota of disk": Bound(
        _resources(ephemeralStorage="2Gi"),
        "lower spec.resources.ephemeralStorage",
        _resources(ephemeralStorage="1Gi"),
        hard={"requests.ephemeral-storage": "1Gi"},
    ),
    "quota of devices": Bound(
        _resources(accelerator="nvidia", count=2),
        "lower spec.resources.count to 1",
        _resources(accelerator="nvidia", count=1),
        hard={"requests.nvidia.com/gpu": "1"},
    ),
}


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("case", BOUNDS)
def test_a_spec_that_follows_the_hint_about_a_quota_or_a_limit_range_gets_a_pod(cluster: Cluster, case: str) -> None:
    bound = BOUNDS[case]
    if bound.hard:
        cluster.create({**QUOTA, "spec": {"hard": bound.hard}})
        cluster.until(
            "the quota counts", lambda: (cluster.get("ResourceQuota", "all") or {}).get("status", {}).get("hard")
        )
    else:
        spec = {"limits": [{"type": "Container", **(bound.limit or {})}]}
        cluster.request("POST", f"/api/v1/namespaces/{cluster.namespace}/limitranges", {**LIMITS, "spec": spec})
    for name, spec in (("before", bound.before), ("after", bound.after)):
        tune(cluster, name, **spec)
        if spec.get("resources", {}).get("accelerator"):
            prepared(cluster, name)
    assert bound.hint in trouble(cluster, "before")["hint"]
    assert cluster.pod_of("after-tune-1")


WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
QUOTA: Raw = {"kind": "ResourceQuota", "metadata": {"name": "all"}, "spec": {"hard": {"limits.cpu": "4"}}}
LIMITS: Raw = {
    "apiVersion": "v1",
    "kind": "LimitRange",
    "metadata": {"name": "small"},
    "spec": {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]},
}


def quota(cluster: Cluster) -> None:
    cluster.create(QUOTA)
    cluster.until("the quota counts", lambda: (cluster.get("ResourceQuota", "all") or {}).get("status", {}).get("hard"))


def limit_range(cluster: Cluster) -> None:
    cluster.request("POST", f"/api/v1/namespaces/{cluster.namespace}/limitranges", LIMITS)


def webhook(cluster: Cluster) -> None:
    """Install a webhook for pods of the namespace whose server does not exist."""
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
    hook = {
        "name": "costs.example.com",
        "rules": [rule],
        "clientConfig": {"url": "https://127.0.0.1:1/pods"},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    body = {"kind": "ValidatingWebhookConfiguration", "metadata": {"name": cluster.namespace}, "webhooks": [hook]}
    cluster.request("POST", WEBHOOKS, {"apiVersion": "admissionregistration.k8s.io/v1", **body})
    time.sleep(2)  # the API server reads its configuration every second


REFUSALS: dict[str, tuple[Callable[[Cluster], None], str, str]] = {
    "a quota that counts a limit that the pod does not set": (
        quota,
        "QuotaExceeded",
        "ResourceQuota all counts limits.cpu",
    ),
    "a limit range": (limit_range, "PodRefused", "a maximum of 1Gi memory per Container"),
    "a webhook that does not answer": (webhook, "PodRefused", "the owner of admission webhook costs.example.com"),
}


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("case", REFUSALS)
def test_messages_of_a_rejection_by_the_api_server_are_interpreted(cluster: Cluster, case: str) -> None:
    arrange, class_, hint = REFUSALS[case]
    arrange(cluster)
    try:
        tune(cluster, "support", resources={"memory": "4Gi"})
        failure = trouble(cluster)
    finally:
        if arrange is webhook:
            cluster.request("DELETE", f"{WEBHOOKS}/{cluster.namespace}")
    assert failure["class"] == class_
    assert hint in failure["hint"], failure
    assert "{" not in failure["hint"]


@pytest.mark.usefixtures("operator")
def test_a_job_without_failures_reads_no_events(cluster: Cluster) -> None:
    kubelet = started(cluster, "support")
    kubelet.runs("fetch")
    cluster.until_phase("FineTuneJob", "support", "Preparing")
    kubelet.ends(MESSAGES)
    cluster.until_phase("FineTuneJob", "support", "Succeeded")
    assert cluster.requests(USER, "get")
    assert not [call for call in cluster.requests(USER, "list", "watch") if "events/" in call]
