"""Optimizers: each learns and resumes exactly, with its own state in the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tunesmith_api.compatibility import available
from tunesmith_api.training import Optimizer
from tunesmith_runtime import train
from tunesmith_runtime.train.optimizers import OPTIMIZERS

ROWS = tinymodel.rows(96)
AVAILABLE = [Optimizer(name) for name in available("training.optimizer")]
LEARNING_RATES = {Optimizer.LION: 3e-4, Optimizer.LION_8BIT: 3e-4, Optimizer.ADAFACTOR: 1e-2}
"""Of optimizers whose steps are larger or smaller than those of AdamW."""

IN_EVERY_RUN = (Optimizer.ADAMW_8BIT, Optimizer.MUON)


def optimized(folder: Path, model: Path, optimizer: Optimizer, **settings: Any) -> Run:
    settings |= {"optimizer": optimizer, "learningRate": LEARNING_RATES.get(optimizer, 3e-3), "epochs": 2}
    return make_run(folder, model, ROWS, settings, tuner="full")


def losses(run: Run) -> list[float]:
    return [entry["loss"] for entry in run.log_history()]


def test_every_optimizer_of_the_api_is_implemented() -> None:
    assert set(OPTIMIZERS) == set(AVAILABLE)


@pytest.mark.parametrize(
    "optimizer",
    [pytest.param(each, marks=[] if each in IN_EVERY_RUN else pytest.mark.deep) for each in AVAILABLE],
)
def test_the_loss_falls_and_a_stopped_run_resumes_exactly(
    optimizer: Optimizer, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = optimized(tmp_path / "whole", tiny, optimizer)
    expected = whole.do(train.run)
    assert losses(whole)[-1] < 0.8 * losses(whole)[0]
    run = optimized(tmp_path / "stopped", tiny, optimizer)
    resumed, report = stop_and_resume(run, tiny, ROWS, 3, monkeypatch)
    assert losses(resumed) == losses(whole)
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]


def test_neftune_adds_noise_to_training_alone(tmp_path: Path, tiny: Path) -> None:
    plain, noisy = (
        make_run(
            tmp_path / str(alpha),
            tiny,
            ROWS,
            {"maxSteps": 2, "learningRate": 1e-5, "neftuneAlpha": alpha},
            validation={"fraction": 0.2},
        )
        for alpha in (None, 20)
    )
    for run in (plain, noisy):
        run.do(train.run)
    assert losses(noisy)[0] != losses(plain)[0]
    first = [run.log_history("eval_loss")[0]["eval_loss"] for run in (plain, noisy)]
    assert first[0] == pytest.approx(first[1], rel=0.05)
