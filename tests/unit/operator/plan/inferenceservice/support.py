"""Helpers of the tests in this folder."""

from __future__ import annotations

import copy
import json
from typing import Any

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
    """The FineTuneJob after it was created again, with another result."""
    job = tuned()
    job["status"]["artifacts"] = [{"name": "merged", "uri": f"s3://store/{digest}", "digest": digest}]
    return job


def ready(cluster: Cluster, pods: int | None = None) -> None:
    """The Deployment controller has rolled out all pods."""
    wanted = cluster.deployments["support"]["spec"]["replicas"] if pods is None else pods
    deployed(cluster, replicas=wanted, readyReplicas=wanted, updatedReplicas=wanted)
    cluster.settle()


def deployed(cluster: Cluster, **status: Any) -> None:
    """The Deployment controller has written this status."""
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
            {"name": container["name"], **states.get(container["name"], {"state": waiting("PodInitializing")})}
            for container in template["spec"][where]
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
    """The operator comes with another image, and reconciles."""
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
