"""Pushed progress in status."""

from __future__ import annotations

import pytest

from tests.unit.operator.plan.jobs.support import begun, pushed
from tests.unit.operator.plan.world import (
    START,
    TUNED,
    running,
)
from tunesmith_api.run import ProgressReport
from tunesmith_operator.plan.jobs.status_progress import is_newer, percent, progress_fields
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Progress


def test_a_restarted_operator_keeps_the_progress_in_status():
    cluster = begun()
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    pushed(cluster, 7)
    cluster.settle()
    cluster.progress.clear()
    assert cluster.reconcile(after=60).is_empty
    assert cluster.status["progress"]["step"] == 7


@pytest.mark.parametrize(("step", "total", "share"), [(0, 0, 0), (1, 3, 33), (3, 3, 100), (4, 3, 100)])
def test_the_share_is_between_0_and_100_and_0_without_a_total(step: int, total: int, share: int) -> None:
    assert percent(step, total) == share


def test_optional_figures_are_shown_with_four_digits_if_they_were_pushed() -> None:
    latest = Progress(
        ProgressReport(
            stage="train",
            step=1,
            total_steps=3,
            loss=1.23456,
            eval_losses=[2.34567],
            rewards=[{"name": "a", "mean": 0.123456}],
        ),
        START,
    )
    shown = progress_fields(latest, "train", "loss", "evalLoss", "evalLosses", "rewards")
    assert (shown["loss"], shown["evalLosses"]) == (1.235, [2.346])
    assert shown["rewards"] == [{"name": "a", "mean": 0.1235}]
    assert "evalLoss" not in shown


def test_progress_that_is_no_later_than_that_in_status_is_not_newer() -> None:
    latest = Progress(ProgressReport(stage="train", step=1, total_steps=3), START)
    assert is_newer(latest, None)
    assert not is_newer(latest, {"updated": format_time(START)})
    assert not is_newer(None, None)
