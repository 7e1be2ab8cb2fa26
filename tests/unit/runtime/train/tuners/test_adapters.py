"""What holds for every tuner that adds an adapter: it learns, resumes exactly, and merges into what it computed beside its base."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tunesmith_api.run import Outcome
from tunesmith_runtime import export, train

TUNERS = ["dora", "loha", "lokr", "vera", "oft", "ia3", "miss"]
ROWS = tinymodel.rows(96)
SETTINGS: dict[str, Any] = {"epochs": 2, "globalBatchSize": 16, "precision": "fp32"}
LEARNING_RATES = {"vera": 3e-2, "ia3": 1e-1}
"""Of tuners that need larger steps on the tiny model than the others."""


def adapter_run(folder: Path, model: Path, tuner: str) -> Run:
    settings = SETTINGS | {"learningRate": LEARNING_RATES.get(tuner, 1e-2)}
    return make_run(folder, model, ROWS, settings, tuner=tuner, lora={"rank": 8})


def losses(run: Run) -> list[float]:
    return [entry["loss"] for entry in run.log_history()]


@pytest.mark.parametrize("tuner", TUNERS)
def test_the_loss_falls_and_the_adapter_is_merged(
    tuner: str, tmp_path: Path, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = adapter_run(tmp_path, tiny, tuner)
    assert run.do(train.run).outcome is Outcome.SUCCEEDED
    assert losses(run)[-1] < 0.8 * losses(run)[0]
    report = run.do(export.run)  # compares the logits of trained, reloaded and merged model
    assert "reloaded: logits differ" in caplog.text
    assert [artifact.name for artifact in report.artifacts or []] == ["adapter", "merged"]


@pytest.mark.parametrize(
    "tuner", [pytest.param(tuner, marks=[] if tuner == "dora" else pytest.mark.deep) for tuner in TUNERS]
)
def test_a_stopped_run_resumes_exactly(tuner: str, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = adapter_run(tmp_path / "whole", tiny, tuner)
    expected = whole.do(train.run)
    run = adapter_run(tmp_path / "stopped", tiny, tuner)
    resumed, report = stop_and_resume(run, tiny, ROWS, 3, monkeypatch)
    assert losses(resumed) == losses(whole)
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]
