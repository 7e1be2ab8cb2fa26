"""The newest Event about an object."""

from __future__ import annotations

from tests.unit.operator.plan.failures.pods import event
from tunesmith_operator.plan.failures.events import event_time, latest_event
from tunesmith_operator.plan.types import Raw

JOB: Raw = {"metadata": {"name": "support-tune-1", "uid": "u1"}}


def test_the_newest_event_of_the_reasons_about_the_object_is_found() -> None:
    old, new = (event("Job", "support-tune-1", "FailedCreate", message, at) for message, at in (("old", 1), ("new", 2)))
    others = [
        event("Job", "support-tune-1", "SuccessfulCreate", "another reason", 3),
        event("Job", "support-tune-2", "FailedCreate", "another Job", 4),
    ]
    assert latest_event(JOB, [new, old, *others], {"FailedCreate"}) == new
    assert latest_event(JOB, others, {"FailedCreate"}) is None


def test_an_event_about_a_deleted_object_of_the_same_name_is_ignored() -> None:
    former = event("Job", "support-tune-1", "FailedCreate", "former")
    former["involvedObject"]["uid"] = "u0"
    assert latest_event(JOB, [former], {"FailedCreate"}) is None


def test_the_time_of_an_event_is_read_from_whichever_field_is_set() -> None:
    assert event_time({"lastTimestamp": None, "eventTime": "2026-01-02T00:00:00Z"}) == "2026-01-02T00:00:00Z"
    assert event_time({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}) == "2026-01-01T00:00:00Z"
    assert event_time({}) == ""
