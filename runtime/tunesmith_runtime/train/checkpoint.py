"""Checkpoints in the store: by time, by steps, and on SIGTERM."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from tunesmith_api.finetunejob_status import LastCheckpoint
from tunesmith_api.status import Artifact
from tunesmith_api.training import Checkpointing
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.train.world.process_group import ALONE, ProcessGroup

log = logging.getLogger(__name__)

ELAPSED = "elapsed.json"
PICKLED_ARGUMENTS = "training_args.bin"
"""The Trainer's arguments as a pickle: never read, and never uploaded."""
RANDOM_STATE = "rng_state_{}.pth"
"""The Trainer's file with the random states of one of several processes."""


class StopEvaluation(Exception):
    """SIGTERM interrupts an evaluation."""


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Saves the state of the run to the store. `stopping`: whether any process of the group has received SIGTERM.

    Training waits for the state to be written to the disk. The leader uploads it while the next steps train, one checkpoint at a time.
    """

    def __init__(
        self,
        run: RunDirectory,
        settings: Checkpointing,
        resumed: LastCheckpoint | None,
        elapsed: float,
        group: ProcessGroup = ALONE,
        kept_step: Callable[[TrainerState], int | None] = lambda _: None,
    ) -> None:
        """`kept_step` returns the step whose checkpoint stays, in addition to the newest ones."""
        self._kept_step = kept_step
        self._run, self._settings, self._group, self._sigterm = run, settings, group, False
        self._elapsed_before, self._started, self._saved = elapsed, time.monotonic(), time.monotonic()
        self._saved_step = resumed.step if resumed else None
        self._uploads = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._upload_of_last: Future[LastCheckpoint] | None = None
        self._last, self.stopping = resumed, False

    @property
    def last(self) -> LastCheckpoint | None:
        """The newest checkpoint that is complete in the store, as the leader knows it. Raises RunFailure if its upload failed."""
        upload = self._upload_of_last
        if upload is not None and upload.done():
            self._last, self._upload_of_last = upload.result(), None
        return self._last

    def wait(self) -> None:
        """Wait until the latest checkpoint is in the store. Raises RunFailure if its upload failed."""
        if self._upload_of_last is not None:
            wait([self._upload_of_last])
            _ = self.last

    def finish(self) -> LastCheckpoint | None:
        """Wait until the latest checkpoint is in the store, and return it, in all processes."""
        self.wait()
        content = self._group.broadcast(self._last and self._last.to_dict())
        return None if content is None else LastCheckpoint.model_validate(content)

    @property
    def elapsed(self) -> float:
        """Seconds of training over all attempts."""
        return self._elapsed_before + time.monotonic() - self._started

    @contextmanager
    def on_sigterm(self) -> Iterator[None]:
        """Within the block, SIGTERM requests a checkpoint and the end of training after the current step.

        A checkpoint whose upload has begun is complete after the block, also where training fails.
        """

        def stop(*_: Any) -> None:
            log.info("received SIGTERM: saving a checkpoint after this step")
            self._sigterm = True

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            self._uploads.shutdown()
            signal.signal(signal.SIGTERM, before)

    def agree(self, due: bool = False) -> bool:
        """Update `stopping` in all processes; return whether a checkpoint is due in any of them."""
        self.stopping, due = self._group.any(self._sigterm, due)
        return due

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clocks."""
        self._started = self._saved = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Request a checkpoint if it is due. After the last step the result itself follows."""
        due = time.monotonic() - self._saved >= self._settings.every_minutes * 60
        due |= bool(self._settings.every_steps and state.global_step % self._settings.every_steps == 0)
        control.should_save = self.agree(due) and state.global_step < state.max_steps
        self._stopped(args, state, control)
        if control.should_save:  # a single checkpoint is on the disk at a time
            self.wait()
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Skip the evaluation when training stops; the Trainer calls this also within an epoch then."""
        return self._stopped(args, state, control)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Leave an evaluation between two batches after SIGTERM."""
        self.agree()
        if self.stopping:
            self._stopped(args, state, control)
            raise StopEvaluation

    def _stopped(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> TrainerControl:
        """Change `control` after SIGTERM: no evaluation, the end of training, and one checkpoint of this step.

        After the last step a checkpoint is saved only if an evaluation is outstanding; otherwise the result follows.
        """
        if self.stopping:
            unfinished = state.global_step < state.max_steps or args.eval_strategy != IntervalStrategy.NO
            control.should_evaluate = False
            control.should_training_stop = True
            control.should_save = unfinished and self._saved_step != state.global_step
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin to upload the checkpoint that the Trainer has saved, with the random states of all processes."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        rank, alone = self._group.rank, self._group.size == 1
        states = [] if alone else self._group.gather((folder / RANDOM_STATE.format(rank)).read_bytes())
        self._group.barrier()  # each process of a pod has written and read its file in the folder
        if self._group.is_leader:
            self.wait()
            for place, content in enumerate(states):
                (folder / RANDOM_STATE.format(place)).write_bytes(content)
            (folder / PICKLED_ARGUMENTS).unlink(missing_ok=True)
            (folder / ELAPSED).write_text(json.dumps({"seconds": self.elapsed}))
            self._upload_of_last = self._uploads.submit(self._upload, folder, state.global_step, self._kept_step(state))
        elif self._group.is_pod_leader:
            shutil.rmtree(folder)
        self._saved, self._saved_step = time.monotonic(), state.global_step

    def _upload(self, folder: Path, step: int, kept_step: int | None) -> LastCheckpoint:
        """Upload a checkpoint, and remove it here."""
        saved = self._run.save_checkpoint(folder, step, self._settings.keep, kept_step)
        shutil.rmtree(folder)
        log.info("checkpoint of step %d: %s", step, saved.uri)
        return saved


def misses_evaluation(state: TrainerState, args: TrainingArguments) -> bool:
    """Return whether the evaluation of a checkpoint's step was due and did not take place."""
    due = {
        IntervalStrategy.NO: False,
        IntervalStrategy.STEPS: state.global_step % (args.eval_steps or 1) == 0,
        IntervalStrategy.EPOCH: float(state.epoch).is_integer(),
    }
    return due[args.eval_strategy] and not is_evaluated(state)


def is_evaluated(state: TrainerState) -> bool:
    """Return whether the validation loss of the latest step has been measured."""
    return any("eval_loss" in entry and entry["step"] == state.global_step for entry in state.log_history)


def download_latest(run: RunDirectory, folder: Path, group: ProcessGroup) -> LastCheckpoint | None:
    """Download the latest checkpoint to `folder`, the same in all processes; None if there is none."""
    latest = run.latest_checkpoint(folder) if group.is_leader else None
    content = group.broadcast(latest and latest.to_dict())
    if content is None:
        return None
    checkpoint = LastCheckpoint.model_validate(content)
    if group.is_pod_leader and not group.is_leader:
        run.fetch(Artifact(name="checkpoint", uri=checkpoint.uri), folder)
    group.barrier()  # the first process of each pod has downloaded it
    return checkpoint


def download_step(run: RunDirectory, step: int, folder: Path, group: ProcessGroup) -> None:
    """Download the checkpoint of `step` to `folder`, once per pod. Raises RunFailure (StorageCorrupt) if it is damaged or lost."""
    if group.is_pod_leader:
        run.fetch_checkpoint(step, folder)
    group.barrier()


def read_elapsed(folder: Path) -> float:
    """Return the seconds of training up to a checkpoint."""
    return float(json.loads((folder / ELAPSED).read_text())["seconds"])
