"""Fields of status that both kinds of job have."""

from __future__ import annotations

from tests.unit.operator.plan.jobs.support import begun
from tests.unit.operator.plan.world import (
    TUNED,
    ended,
    report,
)


def test_resumedfromstep_of_an_earlier_attempt_is_removed():
    cluster = begun()
    stopped = report("train", "Preempted", resumedFromStep=3)
    cluster.fail("support-tune-1", {"fetch": TUNED["fetch"], "train": ended(75, stopped)})
    cluster.settle()
    assert cluster.status["resumedFromStep"] == 3
    cluster.reconcile(after=60)
    cluster.settle()
    assert cluster.status["attempt"] == 2
    assert "resumedFromStep" not in cluster.status
