"""Conditions as meta.SetStatusCondition sets them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tunesmith_operator.plan.status.conditions import WantedCondition, kstatus_conditions, set_conditions

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


def test_conditions_have_the_requested_order():
    wanted = kstatus_conditions(ready=True, reconciling=False, stalled=False, reason="Serving", message="ok")
    written = set_conditions(list(reversed(set_conditions([], wanted, 1, NOW))), wanted, 1, NOW)
    assert [condition["type"] for condition in written] == ["Ready", "Reconciling", "Stalled"]


def test_a_long_message_is_cut_to_the_limit_of_the_schema():
    [written] = set_conditions([], [WantedCondition("Ready", True, "Serving", "x" * 100_000)], 1, NOW)
    assert len(written["message"]) <= 8192


def test_an_idle_resource_has_no_condition_ready():
    wanted = kstatus_conditions(ready=None, reconciling=False, stalled=False, reason="Suspended", message="no pods")
    assert [condition.type for condition in wanted] == ["Reconciling", "Stalled"]
