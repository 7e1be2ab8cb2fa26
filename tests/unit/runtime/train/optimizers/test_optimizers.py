"""Optimizers: each learns and resumes exactly, with its own state in the checkpoint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from transformers.integrations import neftune

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tunesmith_api.compatibility import available
from tunesmith_api.training import Optimizer
from tunesmith_runtime import train
from tunesmith_runtime.train.optimizers import OPTIMIZERS

ROWS = tinymodel.rows(96)
AVAILABLE = [Optimizer(name) for name in available("training.optimizer")]
LEARNING_RATES = {Optimizer.LION: 3e-4, Optimizer.LION_8BIT: 3e-4, Optimizer.ADAFACTOR: 1e-2, Optimizer.GALORE: 2e-2}
"""Of optimizers whose steps are larger or smaller than those of AdamW."""

IN_EVERY_RUN = (Optimizer.ADAMW_8BIT, Optimizer.MUON, Optimizer.GALORE)


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


ALPHA = 20


def test_neftune_adds_uniform_noise_to_the_embeddings_of_training_rows_alone(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers are within alpha / sqrt(length width), as in the paper."""
    added: dict[bool, list[tuple[Any, float]]] = {True: [], False: []}
    add = neftune.neftune_post_forward_hook

    def record(module: Any, inputs: Any, output: Any) -> Any:
        noisy = add(module, inputs, output)
        _, length, width = output.shape
        added[module.training].append(((noisy - output).detach(), ALPHA / math.sqrt(length * width)))
        return noisy

    monkeypatch.setattr(neftune, "neftune_post_forward_hook", record)
    settings = {"maxSteps": 2, "neftuneAlpha": ALPHA}
    make_run(tmp_path, tiny, ROWS, settings, validation={"fraction": 0.2}).do(train.run)
    assert len(added[True]) >= 2
    for noise, bound in added[True]:
        assert float(noise.abs().max()) == pytest.approx(bound, rel=0.01)
        assert float(noise.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert float(noise.mean()) == pytest.approx(0, abs=0.05 * bound)
    assert added[False]
    assert all(not noise.any() for noise, _ in added[False])


def test_a_stopped_run_with_neftune_resumes_exactly(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"epochs": 2, "neftuneAlpha": ALPHA}
    whole, stopped = (make_run(tmp_path / name, tiny, ROWS, settings) for name in ("whole", "stopped"))
    expected = whole.do(train.run)
    resumed, report = stop_and_resume(stopped, tiny, ROWS, 3, monkeypatch)
    assert report.resumed_from_step
    assert losses(resumed) == losses(whole)
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]
