"""Decisions by the validation loss: the best step, and the end of a training when the loss no longer falls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.training import EarlyStopping, Weights
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.train.checkpoint import download_step
from tunesmith_runtime.train.trainers.base import EndOfTraining, RunMixin
from tunesmith_runtime.train.world.process_group import ProcessGroup

log = logging.getLogger(__name__)

History = Sequence[dict[str, Any]]
"""TrainerState.log_history: checkpoints contain it, so that a resumed run decides as an undisturbed one."""


def best_step(history: History) -> tuple[int, float] | None:
    """Return the first step with the lowest validation loss, and this loss; None if none was measured."""
    measured = ((entry["eval_loss"], entry["step"]) for entry in history if "eval_loss" in entry)
    lowest = min((each for each in measured if each[0] == each[0]), default=None)  # NaN is not the lowest loss
    return lowest and (lowest[1], lowest[0])


def is_exhausted(history: History, stopping: EarlyStopping | None) -> bool:
    """Return whether the latest `patience` measurements are no lower than the lowest one before them by more than `min_delta`."""
    if stopping is None:
        return False
    lowest, fruitless = float("inf"), 0
    for loss in (entry["eval_loss"] for entry in history if "eval_loss" in entry):
        if loss < lowest - stopping.min_delta or lowest == float("inf"):
            lowest, fruitless = loss, 0
        else:
            fruitless += 1
    return fruitless >= stopping.patience


def has_ended(state: TrainerState, job: FineTuneJobSpec) -> bool:
    """Return whether no step is left to train."""
    return state.global_step >= state.max_steps or is_exhausted(state.log_history, job.training.early_stopping)


def kept_step(job: FineTuneJobSpec) -> Callable[[TrainerState], int | None]:
    """Return a function that returns the step of the checkpoint that `export.weights` needs at the end."""

    def best(state: TrainerState) -> int | None:
        found = best_step(state.log_history)
        return found and found[0]

    return best if job.export.weights is Weights.BEST else lambda _: None


class WatchValidation(TrainerCallback):  # type: ignore[misc]
    """Ends the training by `training.earlyStopping`, and saves a checkpoint of the best step for `export.weights: best`."""

    def __init__(self, job: FineTuneJobSpec) -> None:
        self._stopping, self._keeps_best = job.training.early_stopping, job.export.weights is Weights.BEST
        self._first_step = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Record the step that this attempt begins with."""
        self._first_step = state.global_step

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Request the end of the training, or a checkpoint. The weights of the last step need none.

        Raises EndOfTraining if an attempt begins with an outstanding measurement that ends the training.
        """
        if is_exhausted(state.log_history, self._stopping):
            log.info("the validation loss no longer falls: training ends after step %d", state.global_step)
            control.should_training_stop = True
            if self._first_step == state.global_step < state.max_steps:
                raise EndOfTraining
        elif self._keeps_best and state.global_step < state.max_steps:
            best = best_step(state.log_history)
            control.should_save |= best is not None and best[0] == state.global_step
        return control


def load_best(trainer: RunMixin, run: RunDirectory, folder: Path, group: ProcessGroup) -> None:
    """Load the weights of the step with the lowest validation loss from its checkpoint, unless it is the current step."""
    best = best_step(trainer.state.log_history)
    if best is None or best[0] == trainer.state.global_step:
        return
    download_step(run, best[0], folder, group)
    if group.is_leader or not trainer.strategy.is_sharded:
        trainer.load_weights(folder)
    log.info("loaded the weights of step %d, whose validation loss %.4f is the lowest", *best)
