"""Jobs in the real Kueue's queues, on a real API server and Job controller; the test plays the kubelet.

The operator works in one namespace with the chart's Roles, which let it list Workloads there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.paths import cache_paths
from devcluster.standalone import ControlPlane
from tests.apiserver.chart import NAMESPACE, VALUES, account, render, without_workloads
from tests.apiserver.cluster import KINDS, Cluster, Kubelet, Raw
from tests.apiserver.conftest import StartOperator
from tests.apiserver.finetunejobs import MESSAGES, tune, tune_on_devices
from tests.apiserver.test_rights import OPTIONAL, in_vain, requests, used
from tests.kueue import kueue, queues

pytestmark = pytest.mark.deep

RELEASE = "queues"
WORK = "tunesmith.dev/role=tune"
"""Label of the pods that queue."""
GPU = {"accelerator": "nvidia", "cpu": "100m"}
PREEMPTED = json.dumps({"verb": "train", "outcome": "Preempted"})
RESUMED = {**MESSAGES, "train": json.dumps({"verb": "train", "outcome": "Succeeded", "resumedFromStep": 12})}


@pytest.fixture(scope="module", autouse=True)
def queue_controller(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with kueue(cache_paths(), plane.kubeconfig, tmp_path_factory.mktemp("kueue")):
        yield


@pytest.fixture
def queue(cluster: Cluster, start_operator: StartOperator) -> str:
    """A queue with quota for one device, and an operator that may read Workloads."""
    name = f"gpus-{cluster.namespace}"
    apply(cluster, *queues(name, {"cpu": "8", "nvidia.com/gpu": "1"}, cluster.namespace))
    values: dict[str, Any] = {
        "scope": {"namespaces": [cluster.namespace]},
        "crds": {"enabled": False},
        "kueue": {"enabled": True},
        "podPolicy": {"priorityClasses": ["urgent"]},
    }
    manifests = render(cluster.plane, {**VALUES, **values}, RELEASE)
    cluster.kubectl("apply", "--filename", "-", stdin=without_workloads(manifests))
    operator = start_operator(release=RELEASE, **values)
    cluster.until("the operator leads", operator.leads)
    return name


def apply(cluster: Cluster, *manifests: Raw) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    cluster.kubectl("apply", "--filename", "-", stdin=json.dumps(listed))


def until_runs(cluster: Cluster, name: str, but: str = "") -> Kubelet:
    """The pod of a FineTuneJob that its queue has admitted, at work; another than `but`."""

    def pod() -> Raw | None:
        pods = cluster.find("Pod", f"batch.kubernetes.io/job-name={name}-tune-1")
        return next((pod for pod in pods if pod["metadata"]["name"] != but), None)

    kubelet = Kubelet(cluster, cluster.until(f"a pod of {name}", pod))
    kubelet.bind()
    kubelet.runs("train")
    cluster.until_phase("FineTuneJob", name, "Running")
    return kubelet


def until_stopped(kubelet: Kubelet) -> None:
    """The pod has saved its state and goes, as it was asked to."""
    cluster = kubelet.cluster

    def asked() -> bool:
        return any(
            pod["metadata"]["name"] == kubelet.name and pod["metadata"].get("deletionTimestamp")
            for pod in cluster.find("Pod")
        )

    cluster.until("it is asked to stop", asked)
    kubelet.ends({}, {"train": {"exitCode": 75, "message": PREEMPTED}})
    path = KINDS["Pod"].path(cluster.namespace, kubelet.name)
    cluster.request("DELETE", path, {"gracePeriodSeconds": 0})


def begun(cluster: Cluster, but: Kubelet) -> set[str]:
    """The FineTuneJobs that have a pod; another than `but`."""
    pods = [pod["metadata"] for pod in cluster.find("Pod", WORK) if pod["metadata"]["name"] != but.name]
    return {pod["labels"]["tunesmith.dev/name"] for pod in pods}


def status(cluster: Cluster, name: str) -> Raw:
    found: Raw = (cluster.get("FineTuneJob", name) or {}).get("status") or {}
    return found


def until_waits_for(cluster: Cluster, name: str, words: str) -> str:
    """The `waitingFor` of a FineTuneJob, as soon as it contains `words`."""

    def matching() -> str | None:
        text = str(status(cluster, name).get("waitingFor", ""))
        return text if words in text else None

    return cluster.until(f"{name} waits for {words!r}: {status(cluster, name).get('waitingFor')}", matching)


def test_admitted_queued_preempted_and_admitted_again(cluster: Cluster, queue: str) -> None:
    urgent = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}}
    apply(cluster, {**urgent, "value": 1000})
    tune_on_devices(cluster, "first", queueName=queue, resources=GPU)
    first = until_runs(cluster, "first")
    tune_on_devices(cluster, "second", queueName=queue, resources=GPU)
    cluster.until_phase("FineTuneJob", "second", "Queued")
    text = until_waits_for(cluster, "second", "insufficient unused quota for nvidia.com/gpu")
    assert text.startswith(f"LocalQueue {queue}: ")

    tune_on_devices(cluster, "hurry", queueName=queue, resources=GPU, pod={"priorityClassName": "urgent"})
    cluster.until_phase("FineTuneJob", "first", "Queued")
    until_stopped(first)
    until_waits_for(cluster, "first", "Preempted to accommodate a workload")
    until_runs(cluster, "hurry").ends(MESSAGES)
    cluster.until_phase("FineTuneJob", "hurry", "Succeeded")

    waiting = {"first": RESUMED, "second": MESSAGES}  # made in the same second, either may come first
    while waiting:
        name = cluster.until("a pod of one of them", lambda: next(iter(begun(cluster, first) & waiting.keys()), None))
        until_runs(cluster, name, but=first.name).ends(waiting.pop(name))
        cluster.until_phase("FineTuneJob", name, "Succeeded")
    final = status(cluster, "first")
    assert (final["attempt"], final["preemptions"], final["resumedFromStep"]) == (1, 1, 12)
    assert [(row["number"], row["outcome"]) for row in final["attempts"]] == [(1, "Preempted"), (1, "Succeeded")]
    assert "failures" not in final
    assert status(cluster, "second")["queuedSeconds"] > 0


def test_a_queue_that_is_not_there_is_named(cluster: Cluster, queue: str) -> None:
    tune_on_devices(cluster, "lost", queueName="nowhere", resources=GPU)
    assert "nowhere" in until_waits_for(cluster, "lost", "doesn't exist")
    assert cluster.find("Pod", WORK) == []


@pytest.mark.usefixtures("queue")
def test_the_right_that_kueue_enabled_adds_is_used_and_is_enough(plane: ControlPlane, cluster: Cluster) -> None:
    tune(cluster, "lost", queueName="nowhere")
    until_waits_for(cluster, "lost", "doesn't exist")
    asked = requests(plane, f"system:serviceaccount:{NAMESPACE}:{account(RELEASE)}")
    here = [entry for entry in asked if entry["objectRef"].get("namespace") == cluster.namespace]
    seen = {right for entry in here for right in used(entry)}
    assert in_vain(here) == []
    rights = OPTIONAL["kueue.enabled"][1]
    assert {right for right in seen if right.group == "kueue.x-k8s.io"} == rights


def test_suspend_gives_the_quota_back(cluster: Cluster, queue: str) -> None:
    tune_on_devices(cluster, "first", queueName=queue, resources=GPU)
    first = until_runs(cluster, "first")
    tune_on_devices(cluster, "second", queueName=queue, resources=GPU)
    cluster.until_phase("FineTuneJob", "second", "Queued")
    cluster.patch("FineTuneJob", "first", {"spec": {"suspend": True}})
    cluster.until_phase("FineTuneJob", "first", "Suspended")
    until_stopped(first)
    until_runs(cluster, "second")
    cluster.patch("FineTuneJob", "first", {"spec": {"suspend": False}})
    cluster.until_phase("FineTuneJob", "first", "Queued")
    assert status(cluster, "first")["attempts"][0]["outcome"] == "Suspended"
    assert "preemptions" not in status(cluster, "first")


def test_a_retry_queues_anew(cluster: Cluster, queue: str) -> None:
    tune_on_devices(cluster, "first", queueName=queue, resources=GPU)
    until_runs(cluster, "first").ends(MESSAGES, {"train": {"exitCode": 137, "reason": "OOMKilled"}})
    tune_on_devices(cluster, "second", queueName=queue, resources=GPU)
    until_runs(cluster, "second")
    again = cluster.job("first-tune-2", seconds=30)
    assert again["spec"]["suspend"] is True
    queued = cluster.until_phase("FineTuneJob", "first", "Queued")["status"]
    assert (queued["failures"], queued["lastFailure"]["class"]) == (1, "OOMKilled")
    until_waits_for(cluster, "first", "insufficient unused quota")
