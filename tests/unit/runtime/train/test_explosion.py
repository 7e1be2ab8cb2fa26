"""A loss that explodes ends the run as Diverged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tinymodel
from tests.unit.runtime.train.methods.samples import FULL, PROMPTS, VOWEL
from tests.unit.runtime.train.support import make_run
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome
from tunesmith_runtime import train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train import explosion as module
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


@pytest.mark.parametrize(("method", "samples"), [("sft", False), ("ppo", True)])
def test_a_loss_that_rises_ends_the_training_unless_the_method_samples(
    method: str, samples: bool, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "explosion", lambda _: (1.0, 9.0))  # whatever the losses are
    spec = {"ppo": {"maxCompletionLength": 4}, "rewards": [VOWEL], **FULL} if samples else {}
    training = {"maxSteps": 2, "globalBatchSize": 8, "microBatchSize": 8}
    run = make_run(tmp_path, tiny, PROMPTS[:16] if samples else tinymodel.rows(16), training, method=method, **spec)
    if samples:
        assert run.do(train.run).outcome is Outcome.SUCCEEDED
        return
    with pytest.raises(RunFailure, match=r"the loss rose from 1\.00 to 9\.00 until step 1"):
        run.do(train.run)
