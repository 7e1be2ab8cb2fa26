"""The plan of an outlook: one status, and an Event for each transition."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.operator.plan.world import START, fine_tune_job
from tunesmith_api.failures import FailureClass
from tunesmith_api.status import LastFailure
from tunesmith_operator.plan.phases import Phase, Reason
from tunesmith_operator.plan.status.outlook import Outlook, name_conflict, plan_from_outlook
from tunesmith_operator.plan.types import Key, Observed, Plan, Raw

RESOURCE = fine_tune_job()
JOB = Key("Job", "support-tune-1")
RUNNING = Outlook(Phase.RUNNING, Reason.RUNNING, "running", reconciling=True)
OOM = LastFailure(class_=FailureClass.OOM_KILLED, message="out of memory", pod="support-tune-1-x", container="train")
NO_IMAGE = LastFailure(class_=FailureClass.IMAGE_PULL, message="no such image", pod="support-tune-1-x")


def plan(outlook: Outlook, status: Raw | None = None, seconds: float = 0) -> Plan:
    resource = {**RESOURCE, "status": status} if status else RESOURCE
    return plan_from_outlook(resource, Observed(), outlook, START + timedelta(seconds=seconds))


def status_of(outlook: Outlook, status: Raw | None = None, seconds: float = 0) -> Raw:
    written = plan(outlook, status, seconds).status
    assert written is not None
    return written


def reasons(plan: Plan) -> list[str]:
    return [event.reason for event in plan.events]


def test_an_unchanged_outlook_writes_nothing() -> None:
    assert plan(RUNNING, status_of(RUNNING), seconds=60).is_empty


def test_a_new_message_in_the_same_phase_and_reason_has_no_event() -> None:
    changed = plan(replace(RUNNING, message="still running"), status_of(RUNNING))
    assert changed.status is not None
    assert changed.events == ()


def test_preparing_has_no_event() -> None:
    assert plan(Outlook(Phase.PREPARING, Reason.FETCHING, "fetching")).events == ()


@pytest.mark.parametrize(("stalled", "type_"), [(False, "Normal"), (True, "Warning")])
def test_the_event_of_a_stalled_resource_is_a_warning(stalled: bool, type_: str) -> None:
    [event] = plan(Outlook(Phase.WAITING, Reason.WAITING_FOR_MODEL, "waiting", stalled=stalled)).events
    assert (event.type, event.reason) == (type_, "WaitingForModel")


def test_a_failure_has_one_event_which_replaces_that_of_the_phase() -> None:
    failed = Outlook(Phase.PENDING, Reason.BACK_OFF, "attempt 1 ended", trouble=OOM)
    assert reasons(plan(failed, status_of(RUNNING))) == ["OOMKilled"]
    again = plan(replace(failed, message="attempt 2 ended"), status_of(failed))
    assert again.events == (), "the same class, pod and container is the same failure"


def test_a_rollback_has_an_event_beside_that_of_its_failure() -> None:
    rolled_back = Outlook(Phase.ROLLED_BACK, Reason.ROLLED_BACK, "the version before serves", trouble=OOM)
    assert reasons(plan(rolled_back, status_of(RUNNING))) == ["OOMKilled", "RolledBack"]


@pytest.mark.parametrize(("trouble", "stays"), [(OOM, True), (NO_IMAGE, False)])
def test_the_last_failure_stays_unless_it_only_kept_a_pod_from_starting(trouble: LastFailure, stays: bool) -> None:
    failed = status_of(Outlook(Phase.PENDING, Reason.BACK_OFF, "a pod failed", trouble=trouble))
    assert ("lastFailure" in status_of(RUNNING, failed)) is stays


def test_a_failure_without_a_time_keeps_the_time_at_which_it_was_first_observed() -> None:
    failed = Outlook(Phase.PENDING, Reason.BACK_OFF, "a pod failed", trouble=NO_IMAGE)
    first = status_of(failed)
    assert plan(failed, first, seconds=60).is_empty
    other = replace(failed, trouble=NO_IMAGE.model_copy(update={"pod": "support-tune-2-x"}))
    assert status_of(other, first, seconds=60)["lastFailure"]["time"] == "2026-11-22T12:01:00Z"


def test_children_are_those_that_exist_after_the_plan() -> None:
    created = {"kind": "Job", "metadata": {"name": "support-tune-2"}}
    observed = Observed(jobs=({"kind": "Job", "metadata": {"name": JOB.name}},))
    outlook = replace(RUNNING, create=(created,), delete=(JOB,))
    written = plan_from_outlook(RESOURCE, observed, outlook, START).status
    assert written is not None
    assert written["children"] == [{"kind": "Job", "name": "support-tune-2"}]


def test_a_requeue_takes_at_least_a_second() -> None:
    assert plan(replace(RUNNING, requeue_after=0.2)).requeue_after == 1.0
    assert plan(RUNNING).requeue_after is None


def test_a_leftover_of_a_deleted_resource_is_awaited_and_an_object_of_others_is_a_failure() -> None:
    leftover = name_conflict(RESOURCE, [JOB], frozenset({JOB}))
    assert (leftover.phase, leftover.reason, leftover.stalled) == (Phase.WAITING, Reason.STOPPING, False)
    service = Key("Service", "support")
    foreign = name_conflict(RESOURCE, [JOB, service], frozenset({JOB}))
    assert (foreign.phase, foreign.reason, foreign.stalled) == (Phase.FAILED, "NameConflict", True)
    assert foreign.message.startswith("Job support-tune-1, Service support exist and do not belong to this resource")
