"""An upgrade from each earlier release to this tree restarts nothing, loses nothing, and adopts finished work.

Helm installs the old release, and its own operator brings resources of all kinds into every phase that it knows. Then helm
upgrades the release, and the operator of the tree takes over. The tests of this file depend on their order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from devcluster.controlplane import ControlPlane
from tests.apiserver.chain import evaluated
from tests.apiserver.chart import CHART, NAMESPACE, RELEASE, VALUES
from tests.apiserver.cluster import NODE, Cluster, Kubelet, Raw, Refused, administrator
from tests.apiserver.finetunejobs import MESSAGES, REPORTS, SPEC
from tests.apiserver.operator_process import OperatorProcess
from tests.apiserver.test_operator_together import DONE
from tests.releases import release
from tunesmith_api.evaljob import EvalJob
from tunesmith_api.finetunejob import FineTuneJob
from tunesmith_api.inferenceservice import InferenceService

OURS: dict[str, type[BaseModel]] = {
    "FineTuneJob": FineTuneJob,
    "EvalJob": EvalJob,
    "InferenceService": InferenceService,
}
CHILDREN = ("Job", "Deployment", "ReplicaSet", "Service", "Pod")
CRDS = ["evaljobs.tunesmith.dev", "finetunejobs.tunesmith.dev", "inferenceservices.tunesmith.dev"]
FINAL = {"Succeeded", "Failed"}
KNOWN = {name: VALUES[name] for name in ("images", "store", "client", "leaderElection")}
"""Values that the old chart knows."""
BASE: Raw = {"uri": "s3://models/base"}
ABSENT: Raw = {"fineTuneJob": {"name": "absent"}}
BAD_ROW = json.dumps(
    {"verb": "fetch", "outcome": "Failed", "failure": {"class": "BadRow", "message": "line 17: no field messages"}}
)


def evaluation(**changes: Any) -> Raw:
    return {"model": BASE, "benchmarks": [{"name": "words", "dataset": {"uri": "s3://data/test.jsonl"}}], **changes}


@dataclass(frozen=True)
class Case:
    """A resource, what happens to it under the old release, the phase that it is in then, and the one it comes to."""

    kind: str
    name: str
    spec: Raw
    phase: str
    end: str
    happens: Callable[[Cluster, Case], object] = lambda cluster, case: None
    refused: str = ""
    """A refusal by the current operator that the previous release did not have."""


def pod(cluster: Cluster, case: Case, role: str, attempt: int = 1) -> Kubelet:
    kubelet = Kubelet(cluster, cluster.pod_of(f"{case.name}-{role}-{attempt}"))
    kubelet.bind()
    return kubelet


def runs(role: str, container: str) -> Callable[[Cluster, Case], None]:
    return lambda cluster, case: pod(cluster, case, role).runs(container)


def ends(role: str, messages: Mapping[str, str], failed: Mapping[str, Raw] | None = None) -> Callable[..., None]:
    return lambda cluster, case: pod(cluster, case, role).ends(messages, failed)


def serving(cluster: Cluster, case: Case) -> None:
    """The pods of the service answer."""
    for kubelet in services_pods(cluster, case.name, case.spec.get("replicas", 1)):
        try:
            kubelet.bind()
            kubelet.ready()
        except Refused as error:  # a rollout deletes the old pod as soon as a new pod is ready
            if error.status != 404:
                raise
    cluster.until_phase(case.kind, case.name, "Ready")


def services_pods(cluster: Cluster, name: str, count: int = 1) -> list[Kubelet]:
    labels = f"tunesmith.dev/role=serve,tunesmith.dev/name={name}"
    find = lambda: there if len(there := cluster.find("Pod", labels)) >= count else None
    return [Kubelet(cluster, one) for one in cluster.until(f"{count} pods of {name}", find)]


def then(change: Raw) -> Callable[[Cluster, Case], None]:
    """It is served, then its spec changes."""

    def happens(cluster: Cluster, case: Case) -> None:
        serving(cluster, case)
        cluster.patch(case.kind, case.name, {"spec": change})

    return happens


def suspended(role: str) -> Callable[[Cluster, Case], None]:
    """It is suspended when it has a pod."""

    def happens(cluster: Cluster, case: Case) -> None:
        cluster.pod_of(f"{case.name}-{role}-1")
        cluster.patch(case.kind, case.name, {"spec": {"suspend": True}})
        cluster.until_gone("Job", f"{case.name}-{role}-1")

    return happens


ADOPTED = {name: json.dumps({**REPORTS[name], "outcome": "Adopted"}) for name in ("train", "export")}
SCORED = evaluated(0.9, "d" * 64)
GATE = {"benchmark": "words", "metric": "accuracy"}
OOM = {"train": {"exitCode": 137, "reason": "OOMKilled"}}
ROW = {"fetch": {"exitCode": 65, "message": BAD_ROW}}
CASES = (
    Case("FineTuneJob", "t-waiting", {**SPEC, "model": ABSENT}, "Waiting", "Waiting"),
    Case("FineTuneJob", "t-pending", SPEC, "Pending", "Succeeded", lambda at, case: at.pod_of(f"{case.name}-tune-1")),
    Case("FineTuneJob", "t-preparing", SPEC, "Preparing", "Succeeded", runs("tune", "fetch")),
    Case("FineTuneJob", "t-running", SPEC, "Running", "Succeeded", runs("tune", "train")),
    Case("FineTuneJob", "t-retried", {**SPEC, "retries": 3}, "Pending", "Succeeded", ends("tune", MESSAGES, OOM)),
    Case("FineTuneJob", "t-suspended", SPEC, "Suspended", "Suspended", suspended("tune")),
    Case("FineTuneJob", "t-done", SPEC, "Succeeded", "Succeeded", ends("tune", MESSAGES)),
    Case("FineTuneJob", "t-kept", {**SPEC, "ttlAfterFinished": "1h"}, "Succeeded", "Succeeded", ends("tune", MESSAGES)),
    Case("FineTuneJob", "t-failed", SPEC, "Failed", "Failed", ends("tune", {}, ROW)),
    Case("FineTuneJob", "t-refused", {**SPEC, "model": {**BASE, "trustRemoteCode": True}}, "Failed", "Failed"),
    Case("EvalJob", "e-waiting", evaluation(model=ABSENT), "Waiting", "Waiting"),
    Case("EvalJob", "e-pending", evaluation(), "Pending", "Succeeded", lambda at, case: at.pod_of("e-pending-eval-model-1")),
    Case("EvalJob", "e-preparing", evaluation(), "Preparing", "Succeeded", runs("eval-model", "fetch")),
    Case("EvalJob", "e-suspended", evaluation(), "Suspended", "Suspended", suspended("eval-model")),
    Case("EvalJob", "e-running", evaluation(), "Running", "Succeeded", runs("eval-model", "evaluate")),
    Case("EvalJob", "e-half", evaluation(baseline=BASE), "Pending", "Succeeded", ends("eval-model", SCORED)),
    Case("EvalJob", "e-passed", evaluation(gates=[{**GATE, "min": 0.5}]), "Succeeded", "Succeeded", ends("eval-model", SCORED)),
    Case("EvalJob", "e-gated", evaluation(gates=[{**GATE, "min": 0.95}]), "Succeeded", "Succeeded", ends("eval-model", SCORED)),
    Case("EvalJob", "e-failed", evaluation(retries=0), "Failed", "Failed", ends("eval-model", {}, {"fetch": {"exitCode": 77}})),
    Case("InferenceService", "s-waiting", {"model": ABSENT}, "Waiting", "Waiting"),
    Case("InferenceService", "s-pending", {"model": BASE}, "Pending", "Ready", lambda at, case: services_pods(at, case.name)),
    Case("InferenceService", "s-ready", {"model": BASE, "replicas": 2}, "Ready", "Ready", serving),
    Case(
        "InferenceService",
        "s-adorned",
        {
            "model": BASE,
            "resources": {"memory": "4Gi", "sharedMemory": "1Gi"},
            "pod": {"env": [{"name": "A", "value": "b"}], "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
        },
        "Ready",
        "Ready",
        serving,
    ),
    Case("InferenceService", "s-rolling", {"model": BASE}, "RollingOut", "RollingOut", then({"model": {"uri": None, **ABSENT}})),
    Case("InferenceService", "s-suspended", {"model": BASE}, "Suspended", "Suspended", then({"suspend": True})),
    Case("InferenceService", "s-promoted", {"model": {"fineTuneJob": {"name": "t-done"}}}, "Ready", "Ready", serving),
    Case("InferenceService", "s-failed", {"model": {**BASE, "trustRemoteCode": True}}, "Failed", "Failed"),
    Case(
        "InferenceService", "s-spoilt", {"model": BASE}, "Failed", "Failed", then({"model": {"trustRemoteCode": True}}),
    ),
    Case(
        "InferenceService",
        "s-blocked",
        {"model": BASE, "promotion": {"evalJobs": [{"name": "e-gated"}]}},
        "Blocked",
        "Blocked",
    ),
)  # fmt: skip
WIDE: Raw = {**SPEC, "parallelism": {"nodes": 2}}
CASES_OF_RELEASE: dict[str, tuple[Case, ...]] = {
    "0.1.0": (
        # No podPolicy: the label is refused after the upgrade only.
        Case(
            "InferenceService", "s-labelled", {"model": BASE, "pod": {"labels": {"team": "a"}}}, "Ready", "Failed", serving,
            refused="podPolicy.labels",
        ),
    ),
    "0.2.0": (
        Case("FineTuneJob", "t-queued", {**SPEC, "queueName": "gpus"}, "Queued", "Queued", lambda at, case: at.job("t-queued-tune-1")),
        Case("EvalJob", "e-queued", evaluation(queueName="gpus"), "Queued", "Queued", lambda at, case: at.job("e-queued-eval-model-1")),
        Case("FineTuneJob", "t-devices", {**SPEC, "resources": {"accelerator": "nvidia"}}, "Preparing", "Succeeded", runs("prepare", "prepare")),
        Case("FineTuneJob", "t-wide", WIDE, "Running", "Succeeded", lambda at, case: all_run(at, "t-wide-tune-1")),
        Case("FineTuneJob", "t-wide-done", WIDE, "Succeeded", "Succeeded", lambda at, case: play(at, "t-wide-done-tune-1", MESSAGES)),
        Case(
            "InferenceService", "s-rolled", {"model": BASE, "rollout": {"readyTimeout": "3s"}}, "RolledBack", "RolledBack",
            then({"model": {"uri": "s3://models/slow"}}),
        ),
        # Only the tree refuses this path.
        Case("InferenceService", "s-path", {"model": {"uri": "s3://models/a//b"}}, "Ready", "Failed", serving, refused="s3://models/a/b"),
    ),
}  # fmt: skip
RELEASES = tuple(CASES_OF_RELEASE)


class Installed(OperatorProcess):
    """An operator with the configuration that the release in the cluster has."""

    def configuration(self) -> dict[str, Any]:
        kubectl = Cluster(self.plane, administrator(self.plane), NAMESPACE).kubectl
        text = kubectl("get", "configmap", f"{RELEASE}-operator", "--namespace", NAMESPACE, "--output=json")
        configuration: dict[str, Any] = yaml.safe_load(json.loads(text)["data"]["config.yaml"])
        return configuration


@dataclass
class Picture:
    """What there is at a moment, by kind and name."""

    things: dict[tuple[str, str], Raw]

    @classmethod
    def of(cls, cluster: Cluster, *kinds: str) -> Picture:
        return cls({(kind, one["metadata"]["name"]): one for kind in kinds for one in cluster.find(kind)})


@dataclass
class World:
    """The control plane with the release, and what was seen on the way."""

    plane: ControlPlane
    cluster: Cluster
    folder: Path
    version: str
    """Of the old release."""
    ours: dict[str, Picture] = field(default_factory=dict)
    children: dict[str, Picture] = field(default_factory=dict)

    def helm(self, *arguments: str) -> None:
        command = [self.plane.program("helm"), "--kubeconfig", str(self.plane.kubeconfig), *arguments]
        done = subprocess.run(command, input=json.dumps(KNOWN), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def install(self, chart: Path) -> None:
        """Install or upgrade, without waiting for pods: no node takes them."""
        self.helm("upgrade", "--install", RELEASE, str(chart), "--namespace", NAMESPACE, "--values=-")
        names = [f"crd/{name}" for name in CRDS]
        self.cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)

    def operator(self, name: str, **code: str) -> Installed:
        operator = Installed(self.plane, self.folder, name, **code)
        operator.start()
        self.cluster.until(f"{name} leads", operator.leads)
        return operator

    def namespace(self, name: str) -> Cluster:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.cluster.request("POST", "/api/v1/namespaces", manifest)
        return Cluster(self.plane, self.cluster.http, name)

    @property
    def cases(self) -> tuple[Case, ...]:
        return (*CASES, *CASES_OF_RELEASE[self.version])

    def picture(self, when: str) -> None:
        self.ours[when] = Picture.of(self.cluster, *OURS)
        self.children[when] = Picture.of(self.cluster, *CHILDREN)


def imported_file(python_path: Path) -> str:
    """The file that a process with this PYTHONPATH imports as the operator."""
    command = [sys.executable, "-c", "import tunesmith_operator; print(tunesmith_operator.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(python_path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def settle(cluster: Cluster, operator: OperatorProcess) -> None:
    """Wait until the operator has looked at everything, and nothing has been written for three seconds."""
    last: dict[tuple[str, str], str] = {}
    end, since = time.monotonic() + 120, time.monotonic()
    while time.monotonic() - since < 3:
        assert time.monotonic() < end, "it does not come to rest"
        things = Picture.of(cluster, *OURS, *CHILDREN).things
        versions = {key: one["metadata"]["resourceVersion"] for key, one in things.items()}
        idle = operator.metric("tunesmith_reconcile_total") > 0 and operator.metric("tunesmith_queue_depth") == 0
        if versions != last or not idle:
            last, since = versions, time.monotonic()
        time.sleep(0.5)


@pytest.fixture(scope="module", params=RELEASES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The cluster as the old release leaves it, with a resource in every phase."""
    with ControlPlane() as plane:
        http = administrator(plane)
        old = release(request.param)
        world = World(plane, Cluster(plane, http, "team"), tmp_path_factory.mktemp("operators"), request.param)
        Cluster(plane, http, NODE).request(
            "POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        )
        for name in (NAMESPACE, "team"):
            world.namespace(name)
        world.install(old.chart)
        assert imported_file(old.operator).startswith(str(old.operator))
        operator = world.operator("old", python_path=str(old.operator))
        cluster = world.cluster
        for case in world.cases:
            cluster.create({"kind": case.kind, "metadata": {"name": case.name}, "spec": case.spec})
            case.happens(cluster, case)
        for case in world.cases:
            cluster.until_phase(case.kind, case.name, case.phase)
        for job in ("t-retried-tune-2", "e-half-eval-baseline-1"):
            cluster.pod_of(job)
        settle(cluster, operator)
        assert operator.stop() == 0
        world.picture("before")
        yield world


@pytest.fixture(scope="module")
def operator(world: World) -> Iterator[Installed]:
    """The operator of the tree, after helm has upgraded the release to its chart."""
    world.install(CHART)
    operator = world.operator("new")
    settle(world.cluster, operator)
    world.picture("after")
    yield operator
    operator.stop()
    assert not operator.complaints()


def changed(before: Raw, after: Raw, *path: str) -> tuple[Any, Any] | None:
    """What is at `path` before and after, where that differs."""
    old, new = at(before, path), at(after, path)
    return None if old == new else (old, new)


def at(thing: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        thing = (thing or {}).get(name)
    return thing


def test_every_phase_that_the_old_operator_knows_is_there(world: World) -> None:
    phases = {(kind, one["status"]["phase"]) for (kind, _), one in world.ours["before"].things.items()}
    jobs = {"Waiting", "Pending", "Preparing", "Running", "Suspended", "Succeeded", "Failed"}
    jobs |= {"Queued"} if world.version != "0.1.0" else set()
    assert {phase for kind, phase in phases if kind == "FineTuneJob"} == jobs
    assert {phase for kind, phase in phases if kind == "EvalJob"} == jobs
    services = {"Waiting", "Pending", "Ready", "RollingOut", "Suspended", "Blocked", "Failed"}
    services |= {"RolledBack"} if world.version != "0.1.0" else set()
    assert {phase for kind, phase in phases if kind == "InferenceService"} == services
    assert {kind for kind, _ in world.children["before"].things} == {*CHILDREN}


NEVER_ANSWERED = "s-pending"
"""A version of a service that has never answered is made as the new operator would: it may mend what is wrong with it."""


@pytest.mark.usefixtures("operator")
def test_no_child_is_replaced_restarted_or_changed(world: World) -> None:
    before, after = (
        {key: one for key, one in world.children[when].things.items() if not key[1].startswith(NEVER_ANSWERED)}
        for when in ("before", "after")
    )
    assert sorted(before.keys() - after.keys()) == []
    paths = (("metadata", "uid"), ("metadata", "generation"), ("spec",), ("metadata", "labels"))
    differences = {
        (*key, *path): difference
        for key, old in before.items()
        for path in paths
        if (difference := changed(old, after[key], *path))
    }
    assert not differences
    assert sorted(key for key in after.keys() - before.keys() if key[0] in ("Job", "Pod", "ReplicaSet")) == []


@pytest.mark.usefixtures("operator")
def test_no_spec_changes_and_every_resource_can_be_read(world: World) -> None:
    before, after = world.ours["before"].things, world.ours["after"].things
    assert before.keys() == after.keys()
    refused = {(case.kind, case.name) for case in world.cases if case.refused}
    for key, old in before.items():
        assert changed(old, after[key], "metadata", "uid") is None
        assert changed(old, after[key], "metadata", "generation") is None
        assert contains(after[key]["spec"], old["spec"]), key
        if key not in refused:
            OURS[key[0]].model_validate({name: after[key][name] for name in ("spec", "status")})
    listed = world.cluster.kubectl("get", "tunesmith", "--namespace", world.cluster.namespace, "--output=name")
    assert len(listed.split()) == len(world.cases)


def contains(new: Any, old: Any) -> bool:
    """Whether `new` has every field of `old`; further fields may have defaults."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(name in new and contains(new[name], value) for name, value in old.items())
    if isinstance(old, list):
        return isinstance(new, list) and len(new) == len(old) and all(map(contains, new, old))
    return bool(new == old)


KEPT = ("phase", "reason", "completionTime", "specHash", "artifacts", "verdict", "results", "version", "attempt")


@pytest.mark.usefixtures("operator")
def test_every_status_says_what_it_said(world: World) -> None:
    before, after = world.ours["before"].things, world.ours["after"].things
    differences: dict[tuple[str, str], Any] = {}
    for case in world.cases:
        old, new = before[case.kind, case.name]["status"], after[case.kind, case.name]["status"]
        assert new["observedGeneration"] == after[case.kind, case.name]["metadata"]["generation"]
        if case.refused:
            assert case.refused in new["message"]
            assert new["readyReplicas"] == old["readyReplicas"]
            continue
        differences |= {(case.name, name): found for name in KEPT if (found := changed(old, new, name))}
        # The words of a refusal that still holds may be better ones now.
        if found := changed(old, new, "lastFailure", "class"):
            differences[case.name, "lastFailure"] = found
    assert not differences


@pytest.mark.usefixtures("operator")
def test_finished_work_is_not_written_to(world: World) -> None:
    """Neither by the upgrade nor by the new operator: a thousand finished jobs cost nothing."""
    before, after = world.ours["before"].things, world.ours["after"].things
    written = {
        key: (old["status"], after[key]["status"])
        for key, old in before.items()
        if old["status"]["phase"] in FINAL
        and "completionTime" in old["status"]
        and changed(old, after[key], "metadata", "resourceVersion")
    }
    assert not written


@pytest.mark.usefixtures("operator")
def test_what_was_under_way_comes_to_its_end(world: World) -> None:
    cluster = world.cluster
    for case in world.cases:
        match case.phase, case.kind:
            case ("Preparing", "FineTuneJob") if case.name == "t-devices":
                play(cluster, "t-devices-prepare-1", MESSAGES)
                play(cluster, "t-devices-tune-1", MESSAGES)
            case ("Pending" | "Preparing" | "Running", "FineTuneJob"):
                play(cluster, f"{case.name}-tune-{2 if case.name == 't-retried' else 1}", MESSAGES)
            case ("Pending" | "Preparing" | "Running", "EvalJob"):
                play(cluster, f"{case.name}-eval-{'baseline' if case.name == 'e-half' else 'model'}-1", SCORED)
            case ("Pending", "InferenceService"):
                serving(cluster, case)
    for case in world.cases:
        cluster.until_phase(case.kind, case.name, case.end)
    for kind, name, messages in (("FineTuneJob", "t-suspended", MESSAGES), ("EvalJob", "e-suspended", SCORED)):
        cluster.patch(kind, name, {"spec": {"suspend": False}})
        job = cluster.until(
            f"{name} is resumed",
            lambda name=name: [one for one in cluster.find("Job") if name in str(one["metadata"]["name"])],  # type: ignore[misc]
        )
        play(cluster, job[0]["metadata"]["name"], messages)
        cluster.until_phase(kind, name, "Succeeded")
    cluster.patch("InferenceService", "s-suspended", {"spec": {"suspend": False}})
    cluster.until(
        "its pods come back", lambda: (cluster.get("Deployment", "s-suspended") or {})["spec"]["replicas"] == 1
    )


def kubelets(cluster: Cluster, job: str) -> list[Kubelet]:
    """The pods of a Job, the last index first, all bound."""
    count = cluster.job(job)["spec"]["completions"]

    def pods() -> list[Raw] | None:
        found = cluster.find("Pod", f"batch.kubernetes.io/job-name={job}")
        return found if len(found) >= count else None

    ordered = sorted(cluster.until(f"{count} pods of {job}", pods), key=_index, reverse=True)
    kubelets = [Kubelet(cluster, pod) for pod in ordered]
    for kubelet in kubelets:
        if not kubelet.pod["spec"].get("nodeName"):
            kubelet.bind()
    return kubelets


def _index(pod: Raw) -> int:
    return int(pod["metadata"]["labels"].get("batch.kubernetes.io/job-completion-index", 0))


def all_run(cluster: Cluster, job: str) -> None:
    for kubelet in kubelets(cluster, job):
        kubelet.runs("train")


def play(cluster: Cluster, job: str, messages: Mapping[str, str]) -> None:
    """All pods of the Job succeed, the first pod last and with `messages`."""
    *others, first = kubelets(cluster, job)
    for kubelet in others:
        kubelet.ends(DONE)
    first.ends(messages)


@pytest.mark.usefixtures("operator")
def test_a_new_version_is_rolled_out_as_ever(world: World) -> None:
    """What was kept of the old release is kept until there is something new to serve, not longer."""
    cluster = world.cluster
    old = services_pods(cluster, "s-ready")[0].pod["metadata"]["annotations"]["tunesmith.dev/version"]
    cluster.patch("InferenceService", "s-ready", {"spec": {"model": {"uri": "s3://models/other"}}})
    new = cluster.until(
        "pods of another version",
        lambda: [
            one
            for one in services_pods(cluster, "s-ready")
            if one.pod["metadata"]["annotations"]["tunesmith.dev/version"] != old
        ],
    )
    assert new


@pytest.mark.usefixtures("operator")
def test_what_kubectl_has_written_down_is_applied_again_and_finds_its_work(world: World) -> None:
    """As docs/operations.md says of backups: with uid, version and status in the file, to a cluster without it."""
    cluster, name = world.cluster, ("finetunejob", "t-done", "--namespace", world.cluster.namespace)
    backup = cluster.kubectl("get", *name, "--output=yaml")
    assert "AdoptedExisting" not in backup
    cluster.kubectl("delete", *name)
    cluster.until_gone("Job", "t-done-tune-1")
    cluster.until("its pod is gone", lambda: not cluster.find("Pod", "batch.kubernetes.io/job-name=t-done-tune-1"))
    cluster.kubectl("apply", "--filename=-", stdin=backup)
    play(cluster, "t-done-tune-1", {**MESSAGES, **ADOPTED})
    restored = cluster.until_phase("FineTuneJob", "t-done", "Succeeded")["status"]
    assert restored["reason"] == "AdoptedExisting"
    assert restored["artifacts"] == yaml.safe_load(backup)["status"]["artifacts"]


def with_resources(world: World, name: str) -> Cluster:
    """A namespace with a resource of each kind, and the children that they have."""
    cluster = world.namespace(name)
    for kind, spec in (("FineTuneJob", SPEC), ("EvalJob", evaluation()), ("InferenceService", {"model": BASE})):
        cluster.create({"kind": kind, "metadata": {"name": "one"}, "spec": spec})
    cluster.until("all their pods", lambda: len(cluster.find("Pod")) == 3)
    return cluster


def deleted(cluster: Cluster) -> None:
    """The namespace goes, and all in it."""
    path = f"/api/v1/namespaces/{cluster.namespace}"
    cluster.request("DELETE", path)

    def gone() -> bool:
        try:
            cluster.request("GET", path)
        except Refused as error:
            return error.status == 404
        return False

    cluster.until(f"namespace {cluster.namespace} is gone", gone, seconds=120)


@pytest.mark.usefixtures("operator")
def test_a_namespace_goes_while_the_operator_runs(world: World) -> None:
    deleted(with_resources(world, "gone-with-operator"))


def test_nothing_of_ours_has_a_finalizer(world: World, operator: Installed) -> None:
    """So nothing waits for an operator that is not there any more."""
    left = with_resources(world, "gone-without-operator")
    settle(left, operator)
    things = [*Picture.of(left, *OURS, "Deployment", "Service").things.values()]
    assert things
    assert [one["metadata"]["name"] for one in things if one["metadata"].get("finalizers")] == []


def test_uninstalling_keeps_crds_resources_and_pods_and_namespaces_still_go(world: World, operator: Installed) -> None:
    cluster = world.cluster
    settle(cluster, operator)
    assert operator.stop() == 0
    ours, children = Picture.of(cluster, *OURS).things, Picture.of(cluster, *CHILDREN).things
    without = ("--set", "crds.enabled=false")
    world.helm("upgrade", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values=-", *without)
    world.helm("uninstall", RELEASE, "--namespace", NAMESPACE)
    crds = cluster.kubectl("get", "crds", "--output=name").split()
    assert [name.partition("/")[2] for name in crds] == CRDS
    time.sleep(3)  # a garbage collector would have begun
    assert Picture.of(cluster, *OURS).things == ours
    assert {key: one["metadata"]["uid"] for key, one in Picture.of(cluster, *CHILDREN).things.items()} == {
        key: one["metadata"]["uid"] for key, one in children.items()
    }
    deleted(Cluster(world.plane, cluster.http, "gone-without-operator"))
