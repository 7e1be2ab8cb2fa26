"""A training whose loss explodes ends: its weights answer worse than those that it began with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from statistics import median
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure

WINDOW = 10
"""Logged losses whose medians are compared: a single step with a large loss is no explosion."""
FACTOR, DIFFERENCE = 3.0, 2.0
"""An exploded loss is this many times the first one, and this much above it: small losses vary by large factors."""


def explosion(history: Sequence[dict[str, Any]]) -> tuple[float, float] | None:
    """Return the first and the latest loss, each a median of WINDOW, if the loss has exploded."""
    begin, end = _losses(history), _losses(reversed(history))
    if len(begin) < WINDOW or begin[-1][0] >= end[-1][0]:
        return None  # the windows overlap
    first, latest = (median(loss for _, loss in window) for window in (begin, end))
    return (first, latest) if latest > max(FACTOR * first, first + DIFFERENCE) else None


def _losses(history: Iterable[dict[str, Any]]) -> list[tuple[int, float]]:
    """Return the first WINDOW steps with a loss, and the losses. It is called at each log, so it reads no more entries than that."""
    return list(islice(((entry["step"], entry["loss"]) for entry in history if "loss" in entry), WINDOW))


class WatchLoss(TrainerCallback):  # type: ignore[misc]
    """Ends the training when its loss explodes."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Raise RunFailure (Diverged) if the loss has exploded."""
        if losses := explosion(state.log_history):
            first, latest = losses
            raise RunFailure(
                FailureClass.DIVERGED, f"the loss rose from {first:.2f} to {latest:.2f} until step {state.global_step}"
            )
