"""Checkpoints in the store: by time, by steps, and when the pod is asked to stop."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from tunesmith_api.finetunejob import Checkpointing, LastCheckpoint
from tunesmith_runtime.rundirectory import RunDirectory

log = logging.getLogger(__name__)

ELAPSED = "elapsed.json"
PICKLED_ARGUMENTS = "training_args.bin"
"""The Trainer leaves its arguments as a pickle. Nobody reads it, and none belongs into a store."""


class StopEvaluation(Exception):
    """An evaluation is cut short, as the pod is asked to stop."""


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Saves the state of the run to the store; `stopping` says whether SIGTERM has come."""

    def __init__(
        self, run: RunDirectory, settings: Checkpointing, resumed: LastCheckpoint | None, elapsed: float
    ) -> None:
        self._run, self._settings = run, settings
        self._elapsed_before, self._started, self._saved = elapsed, time.monotonic(), time.monotonic()
        self.last, self.stopping = resumed, False

    @property
    def elapsed(self) -> float:
        """Seconds of training, over all attempts."""
        return self._elapsed_before + time.monotonic() - self._started

    @contextmanager
    def on_sigterm(self) -> Iterator[None]:
        """Within, SIGTERM asks for a checkpoint and the end instead of ending at once."""

        def stop(*_: Any) -> None:
            log.info("asked to stop: a checkpoint follows this step")
            self.stopping = True

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Time counts from here."""
        self._started = self._saved = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask for a checkpoint where one is due. After the last step none is: the result itself follows."""
        due = time.monotonic() - self._saved >= self._settings.every_minutes * 60
        due |= bool(self._settings.every_steps and state.global_step % self._settings.every_steps == 0)
        control.should_save = due and state.global_step < state.max_steps
        return self._stopped(args, state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """The Trainer comes here also from within an epoch, when it is stopped: nothing is evaluated then."""
        return self._stopped(args, state, control)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Between two batches of an evaluation: leave it where the pod is asked to stop."""
        if self.stopping:
            self._stopped(args, state, control)
            raise StopEvaluation

    def _stopped(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> TrainerControl:
        """`control` where the pod is asked to stop: no evaluation, the end, and the state of this step in the store, once.

        After the last step only an evaluation is still to come; without one the result itself follows.
        """
        if self.stopping:
            to_do = state.global_step < state.max_steps or args.eval_strategy != IntervalStrategy.NO
            control.should_evaluate = False
            control.should_training_stop = True
            control.should_save = to_do and (self.last is None or self.last.step != state.global_step)
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Upload what the Trainer has just saved, and remove it here."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        (folder / PICKLED_ARGUMENTS).unlink(missing_ok=True)
        (folder / ELAPSED).write_text(json.dumps({"seconds": self.elapsed}))
        self.last = self._run.save_checkpoint(folder, state.global_step, self._settings.keep)
        shutil.rmtree(folder)
        self._saved = time.monotonic()
        log.info("checkpoint of step %d: %s", state.global_step, self.last.uri)


def misses_evaluation(state: TrainerState, args: TrainingArguments) -> bool:
    """Whether the state of a checkpoint was to be evaluated and was not, as the run was stopped or lost before that."""
    due = {
        IntervalStrategy.NO: False,
        IntervalStrategy.STEPS: state.global_step % (args.eval_steps or 1) == 0,
        IntervalStrategy.EPOCH: float(state.epoch).is_integer(),
    }
    return due[args.eval_strategy] and not is_evaluated(state)


def is_evaluated(state: TrainerState) -> bool:
    """Whether the validation loss has been measured after the newest step."""
    return any("eval_loss" in entry and entry["step"] == state.global_step for entry in state.log_history)


def read_elapsed(folder: Path) -> float:
    """Seconds of training that a checkpoint contains."""
    return float(json.loads((folder / ELAPSED).read_text())["seconds"])
