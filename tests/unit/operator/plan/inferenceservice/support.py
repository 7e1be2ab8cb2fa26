"""Helpers of the tests in this folder."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from tests.unit.operator.plan.world import (
    CONFIG,
    Cluster,
    condition,
    eval_job,
    inference_service,
    tuned,
    waiting,
    with_spec,
)
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Raw, Reference

TUNED_MODEL = {"fineTuneJob": {"name": "support"}}


GATED = {"model": TUNED_MODEL, "promotion": {"evalJobs": [{"name": "check"}]}}


def evaluated(verdict: str | None, digest: str = "d2", model: Raw | None = None, uri: str = "s3://m") -> Raw:
    """An EvalJob with its verdict."""
    job = eval_job("check", model=model or TUNED_MODEL)
    gate = {"benchmark": "qa", "metric": "accuracy", "passed": verdict == "Passed"}
    status = {
        "phase": "Succeeded" if verdict else "Running",
        "verdict": verdict,
        "model": {"uri": uri, "digest": digest},
        "gates": [{**gate, "message": "accuracy 0.35 is below 0.40"}],
    }
    return {**job, "status": status}


def gated(verdict: str | None = "Passed", **spec: Any) -> Cluster:
    cluster = Cluster(inference_service(**{**GATED, **spec}))
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.others[Reference("EvalJob", "check")] = evaluated(verdict)
    cluster.settle()
    return cluster


def retuned(digest: str) -> Raw:
    """The FineTuneJob after it was made anew, with another result."""
    job = tuned()
    job["status"]["artifacts"] = [{"name": "merged", "uri": f"s3://store/{digest}", "digest": digest}]
    return job


def ready(cluster: Cluster, pods: int | None = None) -> None:
    """The Deployment controller has done its work."""
    wanted = cluster.deployments["support"]["spec"]["replicas"] if pods is None else pods
    deployed(cluster, replicas=wanted, readyReplicas=wanted, updatedReplicas=wanted)
    cluster.settle()


def deployed(cluster: Cluster, **status: Any) -> None:
    """The Deployment controller tells how far it is."""
    deployment = cluster.deployments["support"]
    deployment["status"] = {"observedGeneration": deployment["metadata"]["generation"], **status}


def serve_pod(cluster: Cluster, states: Raw, **status: Any) -> Raw:
    """A pod of the Deployment's present version."""
    template = cluster.deployments["support"]["spec"]["template"]
    containers = [("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")]
    pod = {
        "metadata": {**template["metadata"], "name": "support-abc-1", "namespace": "team", "uid": "u1"},
        "spec": template["spec"],
        "status": {"phase": "Pending", "startTime": format_time(cluster.now), **status},
    }
    for where, statuses in containers:
        pod["status"][statuses] = [
            {"name": one["name"], **states.get(one["name"], {"state": waiting("PodInitializing")})}
            for one in template["spec"][where]
        ]
    cluster.pods["support-abc-1"] = pod
    return pod


def version(cluster: Cluster) -> str:
    return cluster.deployments["support"]["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/version"]


LATE = condition("Progressing", False, "ProgressDeadlineExceeded")


NO_IMAGE = {"fetch": {"state": waiting("ErrImagePull", "not found")}}


AUTOSCALED = {"autoscaling": {"maxReplicas": 5}}


def serving(**spec: Any) -> Cluster:
    """A service whose first version answers."""
    cluster = Cluster(inference_service(**spec))
    cluster.settle()
    ready(cluster)
    return cluster


def template(cluster: Cluster) -> Raw:
    """The Deployment's pods."""
    return copy.deepcopy(cluster.deployments["support"]["spec"]["template"])


def change(cluster: Cluster, **spec: Any) -> None:
    cluster.resource = with_spec(cluster.resource, **spec)
    cluster.settle()


def fail(cluster: Cluster, states: Raw = NO_IMAGE) -> None:
    """The version that is deployed does not get ready in time."""
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=1, conditions=[LATE])
    serve_pod(cluster, states)
    cluster.settle()
    cluster.pods.clear()


def upgrade(cluster: Cluster) -> None:
    """The operator comes with another image, and everything is looked at."""
    images = CONFIG.images.model_copy(update={"runtime": "registry/runtime:2"})
    cluster.config = CONFIG.model_copy(update={"images": images})
    cluster.settle()


def rolled_back() -> Cluster:
    """A service whose second version failed."""
    cluster = serving()
    change(cluster, maxModelLength=512)
    fail(cluster)
    ready(cluster)
    return cluster


def engine(cluster: Cluster) -> str:
    """The engine of the Deployment's pods, which status has to name."""
    run = json.loads(template(cluster)["metadata"]["annotations"]["tunesmith.dev/run"])
    assert cluster.status["engine"] == run["spec"]["engine"]
    return str(run["spec"]["engine"])


class Life:
    """A service, its owner, its cluster and its operator, each doing what they may."""

    def __init__(self, spec: Raw) -> None:
        self.cluster = Cluster(inference_service(**spec))
        self.lost: set[str] = set()
        """Versions whose record somebody has deleted: what is deployed is recorded again, what was before it is not."""
        self.cluster.others[Reference("FineTuneJob", "support")] = retuned("d2")
        self.cluster.others[Reference("EvalJob", "check")] = evaluated("Passed", "d2")

    def edit(self, spec: Raw) -> None:
        self.cluster.resource = with_spec(self.cluster.resource, **spec)

    def retune(self, digest: str, verdict: str | None) -> None:
        self.cluster.others[Reference("FineTuneJob", "support")] = retuned(digest)
        self.cluster.others[Reference("EvalJob", "check")] = evaluated(verdict, digest)

    def deploy(self, ready_: bool, late: bool) -> None:
        if "support" in self.cluster.deployments:
            wanted = self.cluster.deployments["support"]["spec"]["replicas"]
            counts = {"replicas": wanted, "readyReplicas": wanted if ready_ else 0, "updatedReplicas": wanted}
            deployed(self.cluster, **counts, conditions=[LATE] if late else [])

    def pod(self, states: Raw, is_ready: bool) -> None:
        if "support" in self.cluster.deployments:
            serve_pod(self.cluster, states, conditions=[condition("Ready", is_ready)])

    def lose(self, kind: str) -> None:
        if kind == "ControllerRevision":
            self.lost |= {name.removeprefix("support-") for name in self.cluster.revisions}
        self.cluster.shelf(kind).clear()

    def tamper(self, image: str) -> None:
        for one in self.cluster.deployments.values():
            one["spec"]["template"]["spec"]["containers"][0]["image"] = image
            one["metadata"]["generation"] += 1

    def configure(self, image: str) -> None:
        images = CONFIG.images.model_copy(update={"runtime": image})
        self.cluster.config = CONFIG.model_copy(update={"images": images})

    def die(self) -> None:
        """The operator is killed between its children and its status."""
        resource = self.cluster.resource
        self.cluster.reconcile()
        self.cluster.resource = resource

    def wait(self, seconds: int) -> None:
        self.cluster.now += timedelta(seconds=seconds)


children = st.sampled_from(
    ["Deployment", "Service", "ControllerRevision", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Pod"]
)


def check(life: Life) -> None:
    cluster, status = life.cluster, life.cluster.status
    if (served := status.get("version")) and served not in life.lost:
        assert f"support-{served}" in cluster.revisions
    for one in cluster.deployments.values():
        recorded = cluster.revisions[f"support-{version(cluster)}"]["data"]["template"]
        assert one["spec"]["template"] == recorded, "what is deployed is what was recorded"
    assert len(cluster.revisions) <= 3
    deleted = {key.kind for plan in cluster.plans for key in plan.delete}
    assert deleted <= {"ControllerRevision", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    assert status["observedGeneration"] == cluster.resource["metadata"]["generation"]
    assert ("rolledBack" in status) == (cluster.condition("RolledBack") != {})
    replicas = 0 if cluster.resource["spec"].get("suspend") else cluster.resource["spec"].get("replicas", 1)
    for one in cluster.deployments.values():
        assert one["spec"]["replicas"] == replicas
