"""A loss that explodes ends the run as Diverged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tinymodel
from tests.unit.runtime.train.support import make_run
from tunesmith_api.failures import FailureClass
from tunesmith_runtime import train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.explosion import explosion


def history(losses: list[float]) -> list[dict[str, float]]:
    return [{"loss": loss, "step": step} for step, loss in enumerate(losses, start=1)]


def test_a_loss_of_several_times_its_first_value_has_exploded() -> None:
    assert explosion(history([2.0] * 10 + [3.0] * 10 + [9.0] * 6)) == (2.0, 9.0)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60), st.integers(0, 59), st.floats(0, 1000))
def test_small_losses_and_single_large_ones_are_no_explosion(losses: list[float], at: int, large: float) -> None:
    losses[at % len(losses)] = large
    assert explosion(history(losses)) is None


def test_the_first_steps_are_no_explosion() -> None:
    assert explosion(history([1.0] * 9 + [50.0] * 10)) is None


def test_a_training_with_far_too_large_steps_ends_with_both_losses(tiny: Path, tmp_path: Path) -> None:
    settings = {"learningRate": 1.0, "warmupRatio": 0.9, "optimizer": "lion", "globalBatchSize": 4, "epochs": 20}
    run = make_run(tmp_path, tiny, tinymodel.rows(64), settings, tuner="full")
    with pytest.raises(RunFailure, match=r"the loss rose from \d+\.\d\d to \d+\.\d\d until step \d+") as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.DIVERGED
