"""An upgrade from each earlier release to this tree restarts nothing, loses nothing, and adopts finished work.

Helm installs the old release, and its own operator brings resources of all kinds into every phase that it has. Then helm
upgrades the release, and the operator of the tree takes over. The tests of this file depend on their order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from devcluster.standalone import ControlPlane
from tests.apiserver.chart import CHART, NAMESPACE, RELEASE, VALUES
from tests.apiserver.cluster import NODE, Cluster, Raw, Refused, administrator
from tests.apiserver.finetunejobs import MESSAGES, SPEC
from tests.apiserver.operator_process import OperatorProcess
from tests.apiserver.upgrade_cases import (
    ADOPTED,
    BASE,
    CASES,
    CASES_OF_RELEASE,
    RELEASES,
    SCORED,
    Case,
    evaluation,
    play,
    pods_of_service,
    serving,
)
from tests.established import until_established
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
"""Values that the old chart has."""


class Installed(OperatorProcess):
    """An operator with the configuration of the release in the cluster."""

    def configuration(self) -> dict[str, Any]:
        kubectl = Cluster(self.plane, administrator(self.plane), NAMESPACE).kubectl
        text = kubectl("get", "configmap", f"{RELEASE}-operator", "--namespace", NAMESPACE, "--output=json")
        configuration: dict[str, Any] = yaml.safe_load(json.loads(text)["data"]["config.yaml"])
        return configuration


@dataclass
class Snapshot:
    """The objects of some kinds at a moment, by kind and name."""

    objects: dict[tuple[str, str], Raw]

    @classmethod
    def of(cls, cluster: Cluster, *kinds: str) -> Snapshot:
        return cls({(kind, found["metadata"]["name"]): found for kind in kinds for found in cluster.find(kind)})


@dataclass
class World:
    """The control plane with the release, and snapshots of its objects."""

    plane: ControlPlane
    cluster: Cluster
    folder: Path
    version: str
    """Of the old release."""
    ours: dict[str, Snapshot] = field(default_factory=dict)
    children: dict[str, Snapshot] = field(default_factory=dict)

    def helm(self, *arguments: str) -> None:
        command = [self.plane.program("helm"), "--kubeconfig", str(self.plane.kubeconfig), *arguments]
        done = subprocess.run(command, input=json.dumps(KNOWN), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def install(self, chart: Path) -> None:
        """Install or upgrade, without waiting for pods: no node takes them."""
        self.helm("upgrade", "--install", RELEASE, str(chart), "--namespace", NAMESPACE, "--values=-")
        names = [f"crd/{name}" for name in CRDS]
        until_established(self.cluster.kubectl, *names)

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

    def take_snapshot(self, when: str) -> None:
        self.ours[when] = Snapshot.of(self.cluster, *OURS)
        self.children[when] = Snapshot.of(self.cluster, *CHILDREN)


def imported_file(python_path: Path) -> str:
    """The file that a process with this PYTHONPATH imports as the operator."""
    command = [sys.executable, "-c", "import tunesmith_operator; print(tunesmith_operator.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(python_path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def settle(cluster: Cluster, operator: OperatorProcess) -> None:
    """Wait until the operator has reconciled everything, and nothing has been written for three seconds."""
    last: dict[tuple[str, str], str] = {}
    end, since = time.monotonic() + 120, time.monotonic()
    while time.monotonic() - since < 3:
        assert time.monotonic() < end, "it does not come to rest"
        objects = Snapshot.of(cluster, *OURS, *CHILDREN).objects
        versions = {key: found["metadata"]["resourceVersion"] for key, found in objects.items()}
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
        world.take_snapshot("before")
        yield world


@pytest.fixture(scope="module")
def operator(world: World) -> Iterator[Installed]:
    """The operator of the tree, after helm has upgraded the release to its chart."""
    world.install(CHART)
    operator = world.operator("new")
    settle(world.cluster, operator)
    world.take_snapshot("after")
    yield operator
    operator.stop()
    assert not operator.complaints()


def changed(before: Raw, after: Raw, *path: str) -> tuple[Any, Any] | None:
    """The values at `path` before and after; None if they are equal."""
    old, new = at(before, path), at(after, path)
    return None if old == new else (old, new)


def at(thing: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        thing = (thing or {}).get(name)
    return thing


def test_the_old_release_has_a_resource_in_each_of_its_phases(world: World) -> None:
    phases = {(kind, resource["status"]["phase"]) for (kind, _), resource in world.ours["before"].objects.items()}
    jobs = {"Waiting", "Pending", "Preparing", "Running", "Suspended", "Succeeded", "Failed"}
    jobs |= {"Queued"} if world.version != "0.1.0" else set()
    assert {phase for kind, phase in phases if kind == "FineTuneJob"} == jobs
    assert {phase for kind, phase in phases if kind == "EvalJob"} == jobs
    services = {"Waiting", "Pending", "Ready", "RollingOut", "Suspended", "Blocked", "Failed"}
    services |= {"RolledBack"} if world.version != "0.1.0" else set()
    assert {phase for kind, phase in phases if kind == "InferenceService"} == services
    assert {kind for kind, _ in world.children["before"].objects} == {*CHILDREN}


NEVER_ANSWERED = "s-pending"
"""A service whose version has never answered: the new operator may replace it, which may fix what kept it from answering."""


@pytest.mark.usefixtures("operator")
def test_no_child_is_replaced_restarted_or_changed(world: World) -> None:
    before, after = (
        {key: child for key, child in world.children[when].objects.items() if not key[1].startswith(NEVER_ANSWERED)}
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
    before, after = world.ours["before"].objects, world.ours["after"].objects
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
def test_every_status_reports_the_same_state(world: World) -> None:
    before, after = world.ours["before"].objects, world.ours["after"].objects
    differences: dict[tuple[str, str], Any] = {}
    for case in world.cases:
        old, new = before[case.kind, case.name]["status"], after[case.kind, case.name]["status"]
        assert new["observedGeneration"] == after[case.kind, case.name]["metadata"]["generation"]
        if case.refused:
            assert case.refused in new["message"]
            assert new["readyReplicas"] == old["readyReplicas"]
            continue
        differences |= {(case.name, name): found for name in KEPT if (found := changed(old, new, name))}
        # The message of a refusal may be worded differently.
        if found := changed(old, new, "lastFailure", "class"):
            differences[case.name, "lastFailure"] = found
    assert not differences


@pytest.mark.usefixtures("operator")
def test_finished_work_is_not_written_to(world: World) -> None:
    """Neither the upgrade nor the new operator writes to it: a thousand finished jobs cost nothing."""
    before, after = world.ours["before"].objects, world.ours["after"].objects
    written = {
        key: (old["status"], after[key]["status"])
        for key, old in before.items()
        if old["status"]["phase"] in FINAL
        and "completionTime" in old["status"]
        and changed(old, after[key], "metadata", "resourceVersion")
    }
    assert not written


@pytest.mark.usefixtures("operator")
def test_running_and_suspended_work_completes(world: World) -> None:
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
            lambda name=name: [job for job in cluster.find("Job") if name in str(job["metadata"]["name"])],  # type: ignore[misc]
        )
        play(cluster, job[0]["metadata"]["name"], messages)
        cluster.until_phase(kind, name, "Succeeded")
    cluster.patch("InferenceService", "s-suspended", {"spec": {"suspend": False}})
    cluster.until(
        "its pods come back", lambda: (cluster.get("Deployment", "s-suspended") or {})["spec"]["replicas"] == 1
    )


@pytest.mark.usefixtures("operator")
def test_a_changed_spec_is_rolled_out(world: World) -> None:
    """The version of the old release is kept only until the spec asks for another."""
    cluster = world.cluster
    old = pods_of_service(cluster, "s-ready")[0].pod["metadata"]["annotations"]["tunesmith.dev/version"]
    cluster.patch("InferenceService", "s-ready", {"spec": {"model": {"uri": "s3://models/other"}}})
    new = cluster.until(
        "pods of another version",
        lambda: [
            kubelet
            for kubelet in pods_of_service(cluster, "s-ready")
            if kubelet.pod["metadata"]["annotations"]["tunesmith.dev/version"] != old
        ],
    )
    assert new


@pytest.mark.usefixtures("operator")
def test_a_backup_is_applied_again_and_adopts_its_work(world: World) -> None:
    """As docs/operations.md describes: the file has uid, resourceVersion and status, and the resource is gone."""
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
    """A namespace with a resource of each kind and their children."""
    cluster = world.namespace(name)
    for kind, spec in (("FineTuneJob", SPEC), ("EvalJob", evaluation()), ("InferenceService", {"model": BASE})):
        cluster.create({"kind": kind, "metadata": {"name": "sample"}, "spec": spec})
    cluster.until("all their pods", lambda: len(cluster.find("Pod")) == 3)
    return cluster


def delete_namespace(cluster: Cluster) -> None:
    """Delete a namespace, and wait until it is gone."""
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
def test_a_namespace_can_be_deleted_while_the_operator_runs(world: World) -> None:
    delete_namespace(with_resources(world, "gone-with-operator"))


def test_no_resource_or_child_has_a_finalizer(world: World, operator: Installed) -> None:
    """Otherwise their deletion would wait for an operator that is uninstalled."""
    left = with_resources(world, "gone-without-operator")
    settle(left, operator)
    objects = [*Snapshot.of(left, *OURS, "Deployment", "Service").objects.values()]
    assert objects
    assert [found["metadata"]["name"] for found in objects if found["metadata"].get("finalizers")] == []


def uids(objects: Mapping[tuple[str, str], Raw]) -> dict[tuple[str, str], str]:
    return {key: found["metadata"]["uid"] for key, found in objects.items()}


def test_uninstalling_keeps_crds_resources_and_pods_and_namespaces_can_be_deleted(
    world: World, operator: Installed
) -> None:
    cluster = world.cluster
    settle(cluster, operator)
    assert operator.stop() == 0
    ours, children = Snapshot.of(cluster, *OURS).objects, Snapshot.of(cluster, *CHILDREN).objects
    without = ("--set", "crds.enabled=false")
    world.helm("upgrade", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values=-", *without)
    world.helm("uninstall", RELEASE, "--namespace", NAMESPACE)
    crds = cluster.kubectl("get", "crds", "--output=name").split()
    assert [name.partition("/")[2] for name in crds] == CRDS
    time.sleep(3)  # a garbage collector would have begun
    assert Snapshot.of(cluster, *OURS).objects == ours
    assert uids(Snapshot.of(cluster, *CHILDREN).objects) == uids(children)
    delete_namespace(Cluster(world.plane, cluster.http, "gone-without-operator"))
