"""Phase, reason and message of each state of a service."""

from __future__ import annotations

from tests.unit.operator.plan.inferenceservice.support import (
    ready,
    serve_pod,
    serving,
)
from tests.unit.operator.plan.world import (
    Cluster,
    inference_service,
    with_spec,
)


def test_suspend_removes_the_pods_and_keeps_the_service():
    cluster = Cluster(inference_service(replicas=2))
    cluster.settle()
    ready(cluster)
    cluster.resource = with_spec(cluster.resource, suspend=True)
    cluster.settle()
    ready(cluster, 0)
    assert cluster.deployments["support"]["spec"]["replicas"] == 0
    assert "support" in cluster.services
    assert cluster.status["phase"] == "Suspended"
    assert cluster.condition("Ready") == {}
    assert cluster.status["model"] == {"uri": "s3://models/a"}


def test_a_service_without_replicas_is_ready_without_the_condition():
    cluster = Cluster(inference_service(replicas=0))
    cluster.settle()
    ready(cluster)
    assert cluster.status["reason"] == "ScaledToZero"
    assert cluster.condition("Ready") == {}


def test_pods_that_finish_their_answers_are_counted_while_suspended() -> None:
    cluster = serving()
    cluster.resource = with_spec(cluster.resource, suspend=True)
    serve_pod(cluster, {}, phase="Running")
    cluster.settle()
    ready(cluster, 0)
    assert "pods that still finish their requests: 1" in cluster.status["message"]
    cluster.pods.clear()
    cluster.settle()
    assert "no pods" in cluster.status["message"]
    assert cluster.condition("Reconciling")["status"] == "False"
