"""Checks, from a series of statuses, that each attempt of a training resumes from the last checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Ledger:
    """The checkpoint before each attempt, and the step from which the attempt resumed."""

    resumed_from: dict[int, str] = field(default_factory=dict)
    """By attempt, the step from which it resumed and the step saved before. Attempts without a checkpoint are left out."""
    saved: int = 0
    """The step of the last checkpoint in a status."""
    _attempt: int = 0
    _required: int = 0
    _first_report: str | None = None

    def observe(self, status: Mapping[str, Any]) -> None:
        """Take the next status into account. Fails if an attempt resumed before the step saved by then.

        Checkpoints in statuses of earlier attempts were in the store when the Job of the attempt was created. The first
        status of an attempt may still have the progress of the last attempt, so the next report counts. An attempt that
        starts from scratch may still have the resumed step of an earlier attempt, but its first step is lower.
        """
        number, progress = status.get("attempt") or 0, status.get("progress") or {}
        if number != self._attempt:
            self._attempt, self._required, self._first_report = number, self.saved, progress.get("updated")
        elif progress.get("stage") == "train" and progress.get("updated") != self._first_report:
            self._check(status.get("resumedFromStep") or 0, progress.get("step") or 0)
        self.saved = max(self.saved, (status.get("lastCheckpoint") or {}).get("step", 0))

    def _check(self, resumed: int, step: int) -> None:
        what = f"attempt {self._attempt} resumed from step {resumed} and was at {step}; step {self._required} was saved before"
        assert min(resumed, step) >= self._required, what
        if self._required:
            self.resumed_from.setdefault(self._attempt, f"{resumed} where {self._required} was saved")
