"""Reports of a run while it trains: progress in status, lines in the log, metrics in TensorBoard and metrics.jsonl."""

from __future__ import annotations

import json
import logging
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_api.finetunejob_status import MeanReward, Metrics, Rows
from tunesmith_api.run import ProgressReport
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.train.best import best_step
from tunesmith_runtime.train.checkpoint import Checkpoints
from tunesmith_runtime.train.validation import SET_LOSS

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

SECONDS_BETWEEN_REPORTS = 2.0
SMOOTHING = 0.7
"""Weight of earlier steps in the average pace, which gives the remaining time."""

HELD_OUT = ("eval_accuracy", "eval_f1", "eval_correlation", "eval_recall", "eval_mrr")
"""Figures of the validation rows in the log, and in Progress and Metrics."""


class ProgressReporter(TrainerCallback):  # type: ignore[misc]
    """Reports step, loss, tokens per second and remaining time every few seconds."""

    def __init__(
        self,
        progress: ProgressPusher,
        checkpoints: Checkpoints,
        rows: Callable[[], Rows],
        resumed_from_step: int | None,
        rewards: Sequence[str] = (),
        tracking_url: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`rows` returns the counts of the rows, which grow while they are streamed; `rewards` are the names of spec.rewards, and
        `tracking_url` returns the page of the run on the tracker's server."""
        self._rewards, self._tracking_url = rewards, tracking_url
        self._progress, self._checkpoints = progress, checkpoints
        self._rows, self._resumed_from_step = rows, resumed_from_step
        self._latest: dict[str, float] = {}
        self._reported: tuple[float, int, int] = (time.monotonic(), 0, 0)  # time, step, tokens
        self._seconds_per_step: float | None = None
        self._tokens_per_second = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock of the pace."""
        self._reported = (time.monotonic(), state.global_step, int(state.num_input_tokens_seen))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """Report the logged metrics if a report is due."""
        self._latest |= logs
        self._report_if_due(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Report between two logged steps if a report is due."""
        if not control.should_log:
            self._report_if_due(state)

    def _report_if_due(self, state: TrainerState) -> None:
        is_first_or_last = self._seconds_per_step is None or state.global_step == state.max_steps
        if is_first_or_last or time.monotonic() - self._reported[0] >= SECONDS_BETWEEN_REPORTS:
            self._report(state)

    def _report(self, state: TrainerState) -> None:
        reported_at, step, tokens = self._reported
        has_progress = state.global_step > step
        if has_progress:
            now = time.monotonic()
            pace = (now - reported_at) / (state.global_step - step)
            past = pace if self._seconds_per_step is None else self._seconds_per_step
            self._seconds_per_step = SMOOTHING * past + (1 - SMOOTHING) * pace
            self._tokens_per_second = (state.num_input_tokens_seen - tokens) / max(now - reported_at, 1e-6)
            self._reported = (now, state.global_step, int(state.num_input_tokens_seen))
        report = self._progress_report(state)
        self._progress.push(report)
        if has_progress:
            loss = "-" if report.loss is None else f"{report.loss:.4f}"
            log.info(
                "step %d/%d  loss %s  %.0f tokens/s  %d s left",
                report.step, report.total_steps, loss, self._tokens_per_second, report.eta_seconds,
            )  # fmt: skip

    def _progress_report(self, state: TrainerState) -> ProgressReport:
        return ProgressReport(
            stage="train",
            step=state.global_step,
            total_steps=state.max_steps,
            epoch=round(state.epoch or 0.0, 4),
            loss=self._latest.get("loss"),
            eval_loss=self._latest.get("eval_loss"),
            eval_losses=eval_losses(self._latest),
            reward=self._latest.get("reward"),
            rewards=mean_rewards(self._latest, self._rewards),
            sampling_share=self._latest.get("sampling_share"),
            loading_share=self._latest.get("loading_share"),
            truncated_share=self._latest.get("completions/truncated"),
            reward_margin=self._latest.get("rewards/margins"),
            reward_accuracy=self._latest.get("rewards/accuracies"),
            kl=self._latest.get("kl"),
            **held_out_figures(self._latest),
            learning_rate=self._latest.get("learning_rate"),
            tokens_per_second=round(self._tokens_per_second, 1),
            eta_seconds=round((state.max_steps - state.global_step) * (self._seconds_per_step or 0.0)),
            resumed_from_step=self._resumed_from_step,
            rows=self._rows(),
            tracking_url=self._tracking_url(),
            last_checkpoint=self._checkpoints.last,
        )


class MetricsLog(TrainerCallback):  # type: ignore[misc]
    """Writes TensorBoard events and metrics.jsonl below logs/ of the run."""

    def __init__(self, run: RunDirectory) -> None:
        self._run, self._folder = run, run.local / "logs"
        self._writer: SummaryWriter | None = None

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """Add a point for each metric."""
        writer = self._open_writer(state.global_step)
        for name, value in logs.items():
            if isinstance(value, int | float):
                writer.add_scalar(tag(name), value, state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Upload the metrics so far with each checkpoint."""
        self.upload(state)

    def upload(self, state: TrainerState) -> None:
        """Upload the events of this attempt, and metrics.jsonl of all attempts."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "metrics.jsonl"
        path.write_text("".join(json.dumps(entry) + "\n" for entry in state.log_history))
        if self._writer is not None:
            self._writer.flush()
        for path in sorted(self._folder.iterdir()):
            self._run.upload_file(path, f"logs/{path.name}")

    def _open_writer(self, step: int) -> SummaryWriter:
        """Return the writer, imported at the first point. It hides the points of a lost attempt from `step` on."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        return self._writer


def tag(name: str) -> str:
    """Return the name of a logged metric in TensorBoard and in trackers."""
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


def eval_losses(latest: Mapping[str, float]) -> list[float] | None:
    """Return the latest loss of each validation set in their order; None unless there are several."""
    count = sum(name.startswith(SET_LOSS) for name in latest)
    return [latest[f"{SET_LOSS}{index}"] for index in range(count)] or None


def mean_rewards(latest: Mapping[str, float], names: Sequence[str]) -> list[MeanReward] | None:
    """Return the latest mean of each reward; None before the first."""
    found = ((name, latest.get(f"rewards/{name}")) for name in names)
    return [MeanReward(name=name, mean=mean) for name, mean in found if mean is not None] or None


def held_out_figures(latest: Mapping[str, float]) -> dict[str, float | None]:
    """Return the latest figures of the validation rows, beside their loss, by their names in the API."""
    return {name: latest.get(name) for name in HELD_OUT}


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of `device`, or of this process on a CPU, in bytes."""
    if device.type == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(torch.accelerator.max_memory_allocated(device))


def metrics(state: TrainerState, seconds: float, memory: int | None = None) -> Metrics:
    """Return the metrics of a finished run from the Trainer's log; `memory` is its peak in bytes."""
    latest: dict[str, float] = {}
    for entry in state.log_history:
        latest |= entry
    best = best_step(state.log_history)
    return Metrics(
        train_loss=latest.get("loss"),
        eval_loss=latest.get("eval_loss"),
        eval_losses=eval_losses(latest),
        best_step=best and best[0],
        best_eval_loss=best and best[1],
        **held_out_figures(latest),
        steps=state.global_step,
        tokens=int(state.num_input_tokens_seen),
        train_seconds=round(seconds, 3),
        peak_memory_bytes=memory,
    )
