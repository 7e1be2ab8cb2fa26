"""Runs of methods that sample completions: prompts of the tiny model's task, and a reward for completions with a vowel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run

PROMPTS = [{"prompt": row["messages"][:1], "answer": row["messages"][1]["content"]} for row in tinymodel.rows(64)]
VOWEL: dict[str, Any] = {"name": "vowel", "type": "format", "pattern": "e"}
SETTINGS: dict[str, Any] = {
    "globalBatchSize": 32,
    "microBatchSize": 16,
    "learningRate": 1e-2,
    "maxLength": 64,
    "epochs": 3,
}
GROUPS: dict[str, Any] = {"numGenerations": 8, "maxCompletionLength": 8}
FULL: dict[str, Any] = {"tuner": "full", "lora": None}


def sampling_run(
    folder: Path,
    model: Path,
    training: dict[str, Any] | None = None,
    method: str = "grpo",
    settings: dict[str, Any] | None = None,
    rows: list[dict[str, Any]] = PROMPTS,
    **spec: Any,
) -> Run:
    """Return a run of `method` with further `settings` of its block."""
    options = {"method": method, method: GROUPS | (settings or {}), "rewards": [VOWEL], "lora": {"dropout": 0.1}}
    return make_run(folder, model, rows, SETTINGS | (training or {}), **options | spec)


def history(run: Run, metric: str) -> list[float]:
    """Return the values of a metric in the order of steps."""
    return [entry[metric] for entry in run.log_history(metric)]
