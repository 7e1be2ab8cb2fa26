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

from tunesmith_api.common import Artifact
from tunesmith_api.finetunejob import Checkpointing, LastCheckpoint
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.train.process_group import ALONE, Peers

log = logging.getLogger(__name__)

ELAPSED = "elapsed.json"
PICKLED_ARGUMENTS = "training_args.bin"
"""The Trainer leaves its arguments as a pickle. Nobody reads it, and none belongs into a store."""


RANDOM_STATE = "rng_state_{}.pth"
"""The Trainer's file of a process's random states, where there are several processes."""


class StopEvaluation(Exception):
    """An evaluation is cut short, as the pod is asked to stop."""


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Saves the state of the run to the store; `stopping` says whether SIGTERM has come to any of the peers."""

    def __init__(
        self,
        run: RunDirectory,
        settings: Checkpointing,
        resumed: LastCheckpoint | None,
        elapsed: float,
        peers: Peers = ALONE,
    ) -> None:
        self._run, self._settings, self._peers, self._asked = run, settings, peers, False
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
            self._asked = True

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def agree(self, due: bool = False) -> bool:
        """Take note of whether any of the peers is asked to stop; returns whether any says that a checkpoint is due."""
        self.stopping, due = self._peers.any(self._asked, due)
        return due

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Time counts from here."""
        self._started = self._saved = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask for a checkpoint where one is due. After the last step none is: the result itself follows."""
        due = time.monotonic() - self._saved >= self._settings.every_minutes * 60
        due |= bool(self._settings.every_steps and state.global_step % self._settings.every_steps == 0)
        control.should_save = self.agree(due) and state.global_step < state.max_steps
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
        self.agree()
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
        """Upload what the Trainer has just saved, and remove it here. Random states are each process's own."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        rank, alone = self._peers.rank, self._peers.size == 1
        states = [] if alone else self._peers.collect((folder / RANDOM_STATE.format(rank)).read_bytes())
        saved = self._upload(folder, states, state.global_step) if self._peers.leads else None
        told = self._peers.share(saved and saved.to_dict())  # a pod that is to go may go when the state is in the store
        self.last = LastCheckpoint.model_validate(told)
        if self._peers.first_of_pod:
            shutil.rmtree(folder)
        self._saved = time.monotonic()

    def _upload(self, folder: Path, states: list[bytes], step: int) -> LastCheckpoint:
        (folder / PICKLED_ARGUMENTS).unlink(missing_ok=True)
        (folder / ELAPSED).write_text(json.dumps({"seconds": self.elapsed}))
        for rank, content in enumerate(states):
            (folder / RANDOM_STATE.format(rank)).write_bytes(content)
        saved = self._run.save_checkpoint(folder, step, self._settings.keep)
        log.info("checkpoint of step %d: %s", step, saved.uri)
        return saved


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


def newest(run: RunDirectory, folder: Path, peers: Peers) -> LastCheckpoint | None:
    """The state that the run goes on from, downloaded to `folder`: the same for all peers."""
    found = run.latest_checkpoint(folder) if peers.leads else None
    told = peers.share(found and found.to_dict())
    if told is None:
        return None
    checkpoint = LastCheckpoint.model_validate(told)
    if peers.first_of_pod and not peers.leads:
        run.fetch(Artifact(name="checkpoint", uri=checkpoint.uri), folder)
    peers.meet()  # the first process of a pod has brought it for the others
    return checkpoint


def read_elapsed(folder: Path) -> float:
    """Seconds of training that a checkpoint contains."""
    return float(json.loads((folder / ELAPSED).read_text())["seconds"])
