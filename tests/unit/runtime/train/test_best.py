"""The validation loss decides: which step's weights are the result, and when a training ends."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tinymodel
from tests.unit.runtime.train.support import Run, again, make_run, stop_after
from tunesmith_api.run import Outcome, RunReport
from tunesmith_api.training import EarlyStopping
from tunesmith_runtime import train
from tunesmith_runtime.train.best import best_step, is_exhausted

LOSSES = st.lists(st.floats(0, 10), min_size=1, max_size=30)


def history(losses: list[float]) -> list[dict[str, Any]]:
    """Return a log with a validation loss after every second step."""
    return [
        entry
        for number, loss in enumerate(losses, start=1)
        for entry in ({"loss": 1.0, "step": 2 * number}, {"eval_loss": loss, "step": 2 * number})
    ]


@given(LOSSES)
def test_the_best_step_is_the_first_with_the_lowest_loss(losses: list[float]) -> None:
    assert best_step(history(losses)) == (2 * (losses.index(min(losses)) + 1), min(losses))


def test_a_loss_that_is_not_a_number_is_never_the_best() -> None:
    assert best_step(history([float("nan"), 2.0, float("nan")])) == (4, 2.0)
    assert best_step([{"loss": 1.0, "step": 1}]) is None


@given(LOSSES, st.integers(1, 5))
def test_a_training_ends_after_patience_measurements_without_a_lower_loss(losses: list[float], patience: int) -> None:
    fruitless = len(losses) - 1 - losses.index(min(losses))
    assert is_exhausted(history(losses), EarlyStopping(patience=patience)) == (fruitless >= patience)


def test_a_difference_below_min_delta_is_no_lower_loss() -> None:
    slow = history([1.0, 0.96, 0.92, 0.88])
    assert not is_exhausted(slow, EarlyStopping(patience=2, min_delta=0.1))
    assert is_exhausted(slow[:-2], EarlyStopping(patience=2, min_delta=0.1))
    assert not is_exhausted(slow, EarlyStopping(patience=1))
    assert not is_exhausted(slow, None)


def noise(count: int, seed: int) -> list[dict[str, Any]]:
    """Return rows with answers by chance: a model that learns them by heart answers others worse."""
    choose = random.Random(seed)
    rows = tinymodel.rows(count, seed)
    for row in rows:
        row["messages"][-1]["content"] = choose.choice(list(tinymodel.CATEGORIES))
    return rows


ROWS = noise(48, seed=3)
SETTINGS: dict[str, Any] = {
    "epochs": 20, "globalBatchSize": 8, "learningRate": 2e-2, "scheduler": "constant", "warmupRatio": 0,
    "earlyStopping": {"patience": 3},
}  # fmt: skip
SPEC: dict[str, Any] = {"validation": {"fraction": 0.25}, "export": {"weights": "best"}}


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunReport]:
    """An undisturbed run whose validation loss falls and rises again."""
    run = make_run(tmp_path_factory.mktemp("whole"), tiny, ROWS, SETTINGS, **SPEC)
    return run, run.do(train.run)


def test_a_training_that_no_longer_helps_ends_early_and_says_which_step_was_best(whole: tuple[Run, RunReport]) -> None:
    run, report = whole
    losses = [(entry["eval_loss"], entry["step"]) for entry in run.log_history("eval_loss")]
    assert report.outcome is Outcome.SUCCEEDED
    assert report.metrics
    assert (report.metrics.best_eval_loss, report.metrics.best_step) == min(losses)
    assert min(losses) == losses[-4]
    assert report.metrics.steps == losses[-1][1] < 20 * 5


def test_the_published_weights_are_those_of_the_best_step(
    whole: tuple[Run, RunReport], tiny: Path, tmp_path: Path
) -> None:
    _, report = whole
    assert report.metrics
    assert report.artifacts
    settings = {key: value for key, value in SETTINGS.items() if key not in ("epochs", "earlyStopping")}
    until_best = settings | {"maxSteps": report.metrics.best_step, "epochs": 20}
    run = make_run(tmp_path, tiny, ROWS, until_best, validation=SPEC["validation"])
    best = run.do(train.run)
    assert best.artifacts
    assert best.artifacts[0].digest == report.artifacts[0].digest


@pytest.mark.parametrize("before_end", [1, 2])
def test_a_run_that_is_stopped_shortly_before_its_early_end_resumes_to_the_same_result(
    before_end: int, whole: tuple[Run, RunReport], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = whole
    assert expected.metrics
    assert expected.metrics.steps
    run = make_run(tmp_path, tiny, ROWS, SETTINGS, checkpoint={"keep": 1}, **SPEC)
    with stop_after(expected.metrics.steps - before_end, monkeypatch) as pusher:
        stopped = train.run(run.spec, run.work, pusher)
    assert stopped.outcome is Outcome.PREEMPTED
    assert {step for step, _ in run.directory.checkpoints()} == {
        expected.metrics.best_step, stopped.last_checkpoint and stopped.last_checkpoint.step
    }  # fmt: skip
    run = again(run, tiny, ROWS, 2)
    resumed = run.do(train.run)
    assert resumed.artifacts
    assert expected.artifacts
    assert resumed.artifacts[0].digest == expected.artifacts[0].digest
    assert resumed.metrics
    assert resumed.metrics.steps == expected.metrics.steps
