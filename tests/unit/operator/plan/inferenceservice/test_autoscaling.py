"""The HorizontalPodAutoscaler of a service."""

from __future__ import annotations

import pytest

from tests.unit.operator.plan.inferenceservice.support import (
    AUTOSCALED,
    change,
    ready,
    serving,
)
from tests.unit.operator.plan.world import (
    Cluster,
    condition,
    inference_service,
)
from tunesmith_operator.plan.types import Key, Raw


def test_the_autoscaler_scales_the_resource_and_not_its_deployment() -> None:
    cluster = serving(**AUTOSCALED)
    spec = cluster.autoscalers["support"]["spec"]
    target = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "InferenceService", "name": "support"}
    assert spec["scaleTargetRef"] == target
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 5)
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
    assert spec["metrics"] == [{"type": "Resource", "resource": cpu}]
    change(cluster, replicas=4)
    assert cluster.deployments["support"]["spec"]["replicas"] == 4


def test_the_autoscaler_uses_a_metric_of_the_pods_if_the_spec_names_it() -> None:
    cluster = serving(
        autoscaling={"maxReplicas": 5, "metric": {"name": "vllm:num_requests_waiting", "average": "1500m"}}
    )
    metric = {
        "metric": {"name": "vllm:num_requests_waiting"},
        "target": {"type": "AverageValue", "averageValue": "1500m"},
    }
    assert cluster.autoscalers["support"]["spec"]["metrics"] == [{"type": "Pods", "pods": metric}]
    metric["target"]["averageValue"] = "1.5"  # type: ignore[index]
    cluster.autoscalers["support"]["spec"]["metrics"] = [{"type": "Pods", "pods": metric}]
    assert cluster.reconcile().apply == ()


@pytest.mark.parametrize("spec", [{"suspend": True}, {"autoscaling": None}])
def test_a_service_without_pods_has_no_autoscaler(spec: Raw) -> None:
    cluster = serving(**AUTOSCALED)
    change(cluster, **spec)
    assert cluster.autoscalers == {}
    assert cluster.condition("AutoscalingActive") == {}
    assert {"kind": "HorizontalPodAutoscaler", "name": "support"} not in cluster.status["children"]


def test_an_autoscaler_without_metrics_is_reported_and_the_pods_answer() -> None:
    cluster = serving(**AUTOSCALED)
    assert cluster.condition("AutoscalingActive")["status"] == "Unknown"
    able = condition("AbleToScale", True, "SucceededGetScale")
    words = "unable to fetch metrics from resource metrics API"
    conditions = [able, condition("ScalingActive", False, "FailedGetResourceMetric", words)]
    cluster.autoscalers["support"]["status"] = {"conditions": conditions}
    cluster.settle()
    active = cluster.condition("AutoscalingActive")
    assert (active["status"], active["reason"]) == ("False", "FailedGetResourceMetric")
    assert words in cluster.status["message"]
    assert "metrics-server" in cluster.status["message"]
    assert cluster.condition("Ready")["status"] == "True"
    cluster.autoscalers["support"]["status"] = {
        "conditions": [able, condition("ScalingActive", True, "ValidMetricFound")]
    }
    cluster.settle()
    assert cluster.condition("AutoscalingActive")["status"] == "True"
    assert cluster.status["message"] == "1 of 1 pods are ready"


def test_a_foreign_autoscaler_with_the_name_is_reported_and_left_alone() -> None:
    cluster = Cluster(inference_service(**AUTOSCALED))
    cluster.foreign.add(Key("HorizontalPodAutoscaler", "support"))
    cluster.settle()
    ready(cluster)
    assert cluster.autoscalers == {}
    assert cluster.status["phase"] == "Ready"
    assert cluster.condition("AutoscalingActive")["reason"] == "NameConflict"
