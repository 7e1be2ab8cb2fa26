"""A run that changes nothing fails as NothingLearned, for any cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from tests import tinymodel
from tests.unit.runtime.train.support import again, make_run, without_small_numbers
from tests.unit.runtime.train.test_resume import ActAt, Crash, crash
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome
from tunesmith_runtime import train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train import reporting
from tunesmith_runtime.train.models.weight_change import has_effect, is_finite, stored_bits
from tunesmith_runtime.train.training_result import read_result

ROWS = tinymodel.rows(13, seed=1)
DEFAULTS: dict[str, Any] = {"learningRate": None, "epochs": 1, "maxLength": 2048}
"""A single step at the default learning rate."""

SLOW = DEFAULTS | {"learningRate": 1e-8}
LORA: dict[str, Any] = {"tuner": "lora"}
FULL: dict[str, Any] = {"tuner": "full"}


@pytest.mark.parametrize(
    ("spec", "scheduler"),
    [(LORA, "cosine"), (FULL, "linear"), (LORA | {"lora": {"rank": 200, "dropout": 0.5}}, "constant")],
)
def test_a_single_step_learns(tmp_path: Path, tiny: Path, spec: dict[str, Any], scheduler: str) -> None:
    run = make_run(tmp_path, tiny, ROWS, DEFAULTS | {"scheduler": scheduler}, **spec)
    report = run.do(train.run)
    (entry,) = run.log_history()
    assert report.outcome is Outcome.SUCCEEDED
    assert entry["learning_rate"] == (1e-5 if spec is FULL else 1e-4)


@pytest.mark.parametrize(
    ("spec", "training"),
    [
        (LORA, {"learningRate": 1e-30}),
        (LORA, {"learningRate": 1e-12}),
        (LORA, {"maxGradNorm": 1e-30}),
        (FULL, {"learningRate": 1e-30}),
        (FULL, {"maxGradNorm": 1e-30}),
    ],
)
def test_a_run_that_changes_no_weight_fails_as_nothing_learned(
    tmp_path: Path, tiny: Path, spec: dict[str, Any], training: dict[str, Any]
) -> None:
    run = make_run(tmp_path, tiny, ROWS, DEFAULTS | training, **spec)
    with pytest.raises(RunFailure, match="weights after 1 steps compute the same") as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.NOTHING_LEARNED
    assert read_result(run.directory) is None


@pytest.mark.parametrize(("dtype", "learns"), [(torch.float32, True), (torch.bfloat16, False)])
def test_an_update_that_the_stored_format_rounds_away_does_not_count(
    tmp_path: Path, tiny: Path, dtype: torch.dtype, learns: bool
) -> None:
    """Trained weights have 32 bits and change; published weights have the number format of the base."""
    run = make_run(tmp_path, without_small_numbers(tiny, tmp_path / "model", dtype), ROWS, SLOW, **FULL)
    if learns:
        assert run.do(train.run).outcome is Outcome.SUCCEEDED
        return
    with pytest.raises(RunFailure) as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.NOTHING_LEARNED


@pytest.mark.parametrize("spec", [LORA, FULL])
@pytest.mark.parametrize("rate", [1e-3, 1e-30])
def test_changes_before_a_resume_count(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any], rate: float
) -> None:
    monkeypatch.setattr(reporting, "SECONDS_BETWEEN_REPORTS", 0.0)
    run = make_run(tmp_path, tiny, ROWS, {"epochs": 3, "learningRate": rate}, checkpoint={"everySteps": 1}, **spec)
    with pytest.raises(Crash):
        train.run(run.spec, run.work, ActAt(3, crash))
    resumed = again(run, tiny, ROWS, 2)
    if rate == 1e-3:
        assert resumed.do(train.run).outcome is Outcome.SUCCEEDED
        return
    with pytest.raises(RunFailure) as failure:
        resumed.do(train.run)
    assert failure.value.failure is FailureClass.NOTHING_LEARNED


@pytest.mark.parametrize("spec", [LORA, FULL])
def test_nan_weights_after_the_last_step_are_never_published(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any]
) -> None:
    """The loss of a step is computed before its update, so it stays finite."""
    from tunesmith_runtime.train.trainers.base import RunMixin

    clip = torch.nn.utils.clip_grad_norm_

    def broken(trainer: RunMixin, model: torch.nn.Module, *_: Any) -> Any:
        weight = [each for each in model.parameters() if each.requires_grad][-1]
        weight.grad = torch.full_like(weight, float("nan"))
        return clip(model.parameters(), 1.0)

    monkeypatch.setattr(RunMixin, "_clip_grad_norm", broken)
    run = make_run(tmp_path, tiny, ROWS, DEFAULTS, **spec)
    with pytest.raises(RunFailure, match="after the last step, step 1") as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.DIVERGED
    assert read_result(run.directory) is None


numbers = some.lists(some.floats(-1, 1, width=32), min_size=1, max_size=8)


@given(numbers=numbers, at=some.integers(0, 7), by=some.floats(0.1, 10))
def test_a_changed_number_changes_the_checksum(numbers: list[float], at: int, by: float) -> None:
    before = torch.tensor(numbers, dtype=torch.float32)
    after = before.clone()
    after[at % len(numbers)] += by
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert stored_bits(before, dtype, 0.0) == stored_bits(before.clone(), dtype, 0.0)
        changed = bool((before.to(dtype) != after.to(dtype)).any())
        assert (stored_bits(before, dtype, 0.0) != stored_bits(after, dtype, 0.0)) == changed


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_single_nan_or_infinity_is_found(value: float) -> None:
    weight = torch.randn(1000)
    assert is_finite(weight)
    weight[17] = value
    assert not is_finite(weight)


def test_an_update_counts_if_rounding_keeps_it() -> None:
    weight = torch.full((4, 4), 0.5)
    tiny, small, zero = (torch.full((4, 4), size) for size in (1e-9, 1e-5, 0.0))
    assert [has_effect(update, weight) for update in (zero, tiny, small)] == [False, False, True]
