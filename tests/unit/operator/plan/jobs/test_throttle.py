"""How often pushed progress changes status."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.operator.plan.jobs.support import begun, pushed
from tests.unit.operator.plan.world import (
    START,
    TUNED,
    running,
)
from tunesmith_operator.plan.times import format_time


def test_progress_reaches_status_at_most_every_five_seconds():
    cluster = begun()
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    pushed(cluster, 1)
    cluster.settle()
    assert cluster.status["progress"] == {
        "stage": "train",
        "step": 1,
        "totalSteps": 40,
        "percent": 2,
        "loss": 2.0,
        "updated": format_time(START),
    }
    writes = cluster.writes
    for step in (2, 3, 4):
        cluster.now += timedelta(seconds=1)
        pushed(cluster, step)
        assert cluster.reconcile().status is None
    assert cluster.plans[-1].requeue_after == pytest.approx(2)
    cluster.reconcile(after=2)
    assert cluster.status["progress"]["step"] == 4
    assert cluster.writes == writes + 1


def test_a_new_stage_is_shown_immediately():
    cluster = begun()
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    pushed(cluster, 1)
    cluster.settle()
    cluster.now += timedelta(seconds=1)
    pushed(cluster, 1, stage="export")
    cluster.settle()
    assert cluster.status["progress"]["stage"] == "export"
