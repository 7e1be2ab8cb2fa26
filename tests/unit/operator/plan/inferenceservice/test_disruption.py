"""The PodDisruptionBudget of a service."""

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
    inference_service,
)
from tunesmith_operator.plan.types import Key, Raw

BUDGETS: dict[str, tuple[Raw, bool]] = {
    "one pod": ({}, False),
    "several": ({"replicas": 2}, True),
    "none": ({"replicas": 0}, False),
    "several some day": (AUTOSCALED, True),
    "the owner's own": ({"replicas": 3, "disruptionBudget": "Never"}, False),
    "suspended": ({"replicas": 3, "suspend": True}, False),
}


@pytest.mark.parametrize(("spec", "wanted"), BUDGETS.values(), ids=BUDGETS)
def test_several_pods_are_evicted_one_at_a_time_and_a_single_pod_freely(spec: Raw, wanted: bool) -> None:
    cluster = Cluster(inference_service(**spec))
    cluster.settle()
    assert [budget["spec"]["maxUnavailable"] for budget in cluster.budgets.values()] == ([1] if wanted else [])


def test_the_budget_is_deleted_when_a_single_pod_is_left() -> None:
    cluster = serving(replicas=2)
    assert "support" in cluster.budgets
    change(cluster, replicas=1)
    assert cluster.budgets == {}


def test_a_foreign_budget_with_the_name_is_reported_and_left_alone() -> None:
    cluster = Cluster(inference_service(replicas=2))
    cluster.foreign.add(Key("PodDisruptionBudget", "support"))
    cluster.settle()
    ready(cluster)
    assert cluster.budgets == {}
    assert cluster.status["phase"] == "Ready"
    assert "PodDisruptionBudget support exists and does not belong to this service" in cluster.status["message"]
    change(cluster, disruptionBudget="Never")
    assert "PodDisruptionBudget" not in cluster.status["message"]
