from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tunesmith_operator.plan.status.conditions import WantedCondition, kstatus_conditions, set_conditions
from tunesmith_operator.plan.times import format_time, parse_time

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_the_transition_time_moves_only_when_the_status_flips():
    first = set_conditions([], [WantedCondition("Ready", False, "Starting", "no pods")], 1, NOW)
    same = set_conditions(first, [WantedCondition("Ready", False, "Pulling", "an image")], 2, NOW + timedelta(hours=1))
    flip = set_conditions(same, [WantedCondition("Ready", True, "Serving", "")], 2, NOW + timedelta(hours=2))
    assert same[0]["lastTransitionTime"] == first[0]["lastTransitionTime"]
    assert (same[0]["reason"], same[0]["observedGeneration"]) == ("Pulling", 2)
    assert flip[0]["lastTransitionTime"] == "2026-11-22T14:00:00Z"


def test_unknown_is_a_status_of_its_own():
    unknown = set_conditions([], [WantedCondition("Succeeded", None, "Running", "")], 1, NOW)
    known = set_conditions(unknown, [WantedCondition("Succeeded", False, "BadRow", "")], 1, NOW + timedelta(hours=1))
    assert unknown[0]["status"] == "Unknown"
    assert known[0]["lastTransitionTime"] != unknown[0]["lastTransitionTime"]


def test_conditions_keep_the_order_that_is_asked_for():
    wanted = kstatus_conditions(ready=True, reconciling=False, stalled=False, reason="Serving", message="ok")
    made = set_conditions(list(reversed(set_conditions([], wanted, 1, NOW))), wanted, 1, NOW)
    assert [one["type"] for one in made] == ["Ready", "Reconciling", "Stalled"]


def test_a_message_is_cut_to_what_the_schema_allows():
    made = set_conditions([], [WantedCondition("Ready", True, "Serving", "x" * 100_000)], 1, NOW)
    assert len(made[0]["message"]) <= 8192


def test_a_moment_survives_being_written_and_read():
    assert parse_time(format_time(NOW)) == NOW
    assert parse_time("2026-11-22T13:00:00.123456+01:00") == NOW + timedelta(microseconds=123456)


def test_what_is_no_moment_is_none():
    assert [parse_time(text) for text in (None, "", "soon", 7)] == [None] * 4


def test_what_is_at_rest_as_asked_is_neither_ready_nor_not():
    wanted = kstatus_conditions(ready=None, reconciling=False, stalled=False, reason="Suspended", message="no pods")
    assert [one.type for one in wanted] == ["Reconciling", "Stalled"]
