"""The curves of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith_runtime.export.curves import MOST_POINTS, draw, points


@pytest.mark.parametrize("steps", [1, MOST_POINTS, MOST_POINTS + 1, 10 * MOST_POINTS + 7])
def test_a_curve_has_a_bounded_number_of_points_and_the_last_one(steps: int) -> None:
    history = [{"step": step, "loss": float(step)} for step in range(1, steps + 1)]
    kept, values = points(history, "loss")
    assert len(kept) <= MOST_POINTS
    assert len(kept) >= min(steps, MOST_POINTS) / 2
    assert (kept[-1], values[-1]) == (steps, float(steps))


def test_entries_without_the_metric_are_no_points() -> None:
    assert points([{"step": 1, "loss": 2.0}, {"step": 1, "eval_loss": 3.0}, {"step": 2, "loss": None}], "loss") == (
        [1],
        [2.0],
    )


def test_there_is_a_panel_for_each_kind_of_metric_that_the_run_logged(tmp_path: Path) -> None:
    figure = draw([{"step": 1, "loss": 2.0, "eval_loss": 1.9, "reward": 0.5, "kl": 0.1, "epoch": 1.0}], tmp_path)
    assert figure
    assert [panel.get_ylabel() for panel in figure.axes] == ["loss", "reward", "KL divergence"]


def test_a_run_that_logged_nothing_has_no_curves(tmp_path: Path) -> None:
    assert draw([], tmp_path) is None
