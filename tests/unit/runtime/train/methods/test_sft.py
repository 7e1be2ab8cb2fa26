"""Weights of answers: what a run with them learns from, and the settings that refuse them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run
from tunesmith_runtime import train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train import reporting

SHORT: dict[str, Any] = {"globalBatchSize": 8, "epochs": 1, "logSteps": 1}


@pytest.fixture(autouse=True)
def report_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "SECONDS_BETWEEN_REPORTS", 0.0)


def scaled(weight: float | None, count: int = 16) -> list[dict[str, Any]]:
    """Rows of the task of the tiny model whose answers have this weight."""
    return [
        {
            "messages": [
                {**message, "loss_scale": weight} if message["role"] == "assistant" else message for message in messages
            ]
        }
        for messages in (row["messages"] for row in tinymodel.rows(count, seed=1))
    ]


def trained(folder: Path, tiny: Path, rows: list[dict[str, Any]], **training: Any) -> Run:
    run = make_run(folder, tiny, rows, SHORT | training, tuner="full", validation={"fraction": 0.5})
    run.do(train.run)
    return run


@pytest.mark.parametrize("packing", [False, True])
def test_training_and_validation_losses_have_the_weights(packing: bool, tiny: Path, tmp_path: Path) -> None:
    whole, half = (trained(tmp_path / str(weight), tiny, scaled(weight), packing=packing) for weight in (None, 0.5))
    for metric in ("loss", "eval_loss"):
        expected, found = (run.log_history(metric)[0][metric] for run in (whole, half))
        assert found == pytest.approx(expected / 2, rel=1e-3 if metric == "loss" else 0.05)


def test_a_run_with_weights_of_one_is_the_run_without(tiny: Path, tmp_path: Path) -> None:
    without, ones = (trained(tmp_path / str(weight), tiny, scaled(weight)) for weight in (None, 1.0))
    assert [entry["loss"] for entry in without.log_history()] == [entry["loss"] for entry in ones.log_history()]


def test_weights_are_refused_while_rows_are_streamed(tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, tiny, scaled(0.5), {"streaming": True, "maxSteps": 2, "epochs": None})
    with pytest.raises(RunFailure, match=r"weight other than 0 and 1, which training\.streaming does not") as failure:
        run.do(train.run)
    assert failure.value.hint == "set spec.training.streaming: false, or write weight 0 or 1"
