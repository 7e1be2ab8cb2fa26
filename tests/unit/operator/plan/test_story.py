"""Events of a life, as `kubectl describe` shows them: each transition once, in order."""

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
    """A job whose pod fits on no node."""
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    not_scheduled = condition("PodScheduled", False, "Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.")
    cluster.start_pod("support-tune-1", conditions=[not_scheduled])
    cluster.settle()
    return cluster


def life() -> Cluster:
    """A job that is unschedulable, out of memory, suspended, resumed and succeeded."""
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


def test_each_transition_of_a_life_with_failures_is_reported_once() -> None:
    reported = [event.reason for event in life().events]
    first = ["WaitingForPod", "Unschedulable", "Running", "OOMKilled"]
    second = ["WaitingForPod", "Suspended"]
    third = ["WaitingForPod", "Running", "Completed"]
    assert reported == [*first, *second, *third]


def test_a_failure_is_a_warning_with_its_hint() -> None:
    warnings = {event.reason: event.message for event in life().events if event.type is EventType.WARNING}
    assert set(warnings) == {"Unschedulable", "OOMKilled"}
    assert "lower spec.resources.cpu" in warnings["Unschedulable"]
    assert "raise spec.resources.memory" in warnings["OOMKilled"]


def test_the_event_of_a_failure_has_the_same_identity_before_and_after_the_backoff() -> None:
    """After a kill between Event and status, the next reconcile may already plan the next attempt."""

    def reported(after: float) -> list[str | None]:
        cluster = Cluster(fine_tune_job())
        cluster.settle()
        cluster.start_pod("support-tune-1", "Pending", {**FETCHED, "train": running()})
        cluster.settle()
        cluster.fail("support-tune-1", {**FETCHED, "train": ended(137, reason="OOMKilled")})
        return [event.once for event in cluster.reconcile(after=after).events if event.reason == "OOMKilled"]

    assert reported(after=1) == reported(after=60)
    assert None not in reported(after=1)


def test_the_event_of_a_pending_pod_is_identified_by_the_previous_status() -> None:
    cluster = unschedulable()
    assert [event.once for event in cluster.events if event.reason == "Unschedulable"] == [None]
