"""What `kubectl describe` tells of a life: each transition once, in order."""

from __future__ import annotations

from tests.unit.operator.plan.world import (
    TUNED,
    Cluster,
    condition,
    ended,
    fine_tune_job,
    running,
    tune,
    with_spec,
)
from tunesmith_operator.plan.types import EventType

FETCHED = {"fetch": TUNED["fetch"]}


def unschedulable() -> Cluster:
    """No node has room for the pod."""
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    nowhere = condition("PodScheduled", False, "Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.")
    cluster.start_pod("support-tune-1", conditions=[nowhere])
    cluster.settle()
    return cluster


def life() -> Cluster:
    """No node, then out of memory, suspended, resumed, done."""
    cluster = unschedulable()
    cluster.start_pod("support-tune-1", "Pending", {**FETCHED, "train": running()})
    cluster.settle()
    cluster.fail("support-tune-1", {**FETCHED, "train": ended(137, reason="OOMKilled")})
    cluster.settle()
    cluster.reconcile(after=15)
    cluster.settle()
    for suspend in (True, False):
        cluster.resource = with_spec(cluster.resource, suspend=suspend)
        cluster.settle()
    cluster.start_pod("support-tune-3", "Pending", {"fetch": running()})
    cluster.settle()
    cluster.start_pod("support-tune-3", "Pending", {**FETCHED, "train": running()})
    cluster.settle()
    tune(cluster, "support-tune-3")
    cluster.settle()
    return cluster


def test_a_life_of_failures_is_told_once() -> None:
    told = [event.reason for event in life().events]
    first = ["WaitingForPod", "Unschedulable", "Running", "OOMKilled"]
    second = ["WaitingForPod", "Suspended"]
    third = ["WaitingForPod", "Running", "Completed"]
    assert told == [*first, *second, *third]


def test_what_went_wrong_is_a_warning_with_what_to_do() -> None:
    warnings = {event.reason: event.message for event in life().events if event.type is EventType.WARNING}
    assert set(warnings) == {"Unschedulable", "OOMKilled"}
    assert "lower spec.resources.cpu" in warnings["Unschedulable"]
    assert "raise spec.resources.memory" in warnings["OOMKilled"]


def test_a_failure_has_one_name_whether_it_is_seen_before_or_after_the_next_attempt_may_begin() -> None:
    """A kill, say, between its Event and the status: the look after it may plan the next attempt at once."""

    def told(after: float) -> list[str | None]:
        cluster = Cluster(fine_tune_job())
        cluster.settle()
        cluster.start_pod("support-tune-1", "Pending", {**FETCHED, "train": running()})
        cluster.settle()
        cluster.fail("support-tune-1", {**FETCHED, "train": ended(137, reason="OOMKilled")})
        return [event.once for event in cluster.reconcile(after=after).events if event.reason == "OOMKilled"]

    assert told(after=1) == told(after=60)
    assert None not in told(after=1)


def test_what_keeps_a_pod_from_starting_is_told_by_the_status_it_leads_away_from() -> None:
    cluster = unschedulable()
    assert [event.once for event in cluster.events if event.reason == "Unschedulable"] == [None]
