"""What people see of a run while it trains: progress in status, lines in the log, curves in TensorBoard."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_api.finetunejob import Rows
from tunesmith_api.run import ProgressReport
from tunesmith_runtime.progress_push import Progress
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.train.checkpoint import Checkpoints

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

SECONDS_BETWEEN_REPORTS = 2.0
SMOOTHING = 0.7
"""Weight of the past in the pace that the time left is told by."""


class Watch(TrainerCallback):  # type: ignore[misc]
    """Reports every few seconds: step, loss, tokens per second, time left."""

    def __init__(self, progress: Progress, checkpoints: Checkpoints, rows: Rows, resumed_from_step: int | None) -> None:
        self._progress, self._checkpoints = progress, checkpoints
        self._rows, self._resumed_from_step = rows, resumed_from_step
        self._newest: dict[str, float] = {}
        self._reported: tuple[float, int, int] = (time.monotonic(), 0, 0)  # when, step, tokens
        self._seconds_per_step: float | None = None
        self._tokens_per_second = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The pace counts from here."""
        self._reported = (time.monotonic(), state.global_step, int(state.num_input_tokens_seen))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """Report the newest figures, if the last report is a while ago or this is the end."""
        self._newest |= logs
        self._report_if_due(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Report between two logged steps."""
        if not control.should_log:
            self._report_if_due(state)

    def _report_if_due(self, state: TrainerState) -> None:
        ends = self._seconds_per_step is None or state.global_step == state.max_steps
        if ends or time.monotonic() - self._reported[0] >= SECONDS_BETWEEN_REPORTS:
            self._report(state)

    def _report(self, state: TrainerState) -> None:
        when, step, tokens = self._reported
        moved = state.global_step > step
        if moved:
            now = time.monotonic()
            pace = (now - when) / (state.global_step - step)
            past = pace if self._seconds_per_step is None else self._seconds_per_step
            self._seconds_per_step = SMOOTHING * past + (1 - SMOOTHING) * pace
            self._tokens_per_second = (state.num_input_tokens_seen - tokens) / max(now - when, 1e-6)
            self._reported = (now, state.global_step, int(state.num_input_tokens_seen))
        report = self._progress_report(state)
        self._progress.push(report)
        if moved:
            loss = "-" if report.loss is None else f"{report.loss:.4f}"
            place = f"step {report.step}/{report.total_steps}"
            log.info("%s  loss %s  %.0f tokens/s  %d s left", place, loss, self._tokens_per_second, report.eta_seconds)

    def _progress_report(self, state: TrainerState) -> ProgressReport:
        return ProgressReport(
            stage="train",
            step=state.global_step,
            total_steps=state.max_steps,
            epoch=round(state.epoch or 0.0, 4),
            loss=self._newest.get("loss"),
            eval_loss=self._newest.get("eval_loss"),
            learning_rate=self._newest.get("learning_rate"),
            tokens_per_second=round(self._tokens_per_second, 1),
            eta_seconds=round((state.max_steps - state.global_step) * (self._seconds_per_step or 0.0)),
            resumed_from_step=self._resumed_from_step,
            rows=self._rows,
            last_checkpoint=self._checkpoints.last,
        )


class Curves(TrainerCallback):  # type: ignore[misc]
    """TensorBoard events and metrics.jsonl, below logs/ of the run."""

    def __init__(self, run: RunDirectory) -> None:
        self._run, self._folder = run, run.local / "logs"
        self._writer: SummaryWriter | None = None

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """One point of every curve."""
        writer = self._opened(state.global_step)
        for name, value in logs.items():
            if isinstance(value, int | float):
                curve = f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
                writer.add_scalar(curve, value, state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Bring the curves so far to the store."""
        self.upload(state)

    def upload(self, state: TrainerState) -> None:
        """Bring the curves to the store: this attempt's events, and the figures of all attempts."""
        self._folder.mkdir(parents=True, exist_ok=True)
        figures = self._folder / "metrics.jsonl"
        figures.write_text("".join(json.dumps(entry) + "\n" for entry in state.log_history))
        if self._writer is not None:
            self._writer.flush()
        for path in sorted(self._folder.iterdir()):
            self._run.upload_file(path, f"logs/{path.name}")

    def _opened(self, step: int) -> SummaryWriter:
        """The writer, imported at the first point: until then nobody needs it. It hides points from `step` on of a lost attempt."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        return self._writer
