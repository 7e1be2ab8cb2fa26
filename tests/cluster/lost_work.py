"""How much of a training its attempts lose: status, looked at again and again, must show each to go on from what was saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Ledger:
    """What was saved before each attempt, and where the attempt went on."""

    went_on: dict[int, str] = field(default_factory=dict)
    """By attempt: the step that was saved before it, and the one that it went on from. Without those that had nothing."""
    saved: int = 0
    """The step of the last checkpoint that status has told of."""
    _attempt: int = 0
    _owed: int = 0
    _told_before: str | None = None

    def look(self, status: Mapping[str, Any]) -> None:
        """Hear a status, and fail where an attempt went on from less than was saved before it.

        An attempt owes what was told under the number of one before it: that was in the store when its Job was made. What
        status says of progress when it first has the number may be the former attempt's, so the next word counts. Where
        an attempt began with nothing, status may still have the step of a former one: its first step gives it away.
        """
        number, progress = status.get("attempt") or 0, status.get("progress") or {}
        if number != self._attempt:
            self._attempt, self._owed, self._told_before = number, self.saved, progress.get("updated")
        elif progress.get("stage") == "train" and progress.get("updated") != self._told_before:
            self._check(status.get("resumedFromStep") or 0, progress.get("step") or 0)
        self.saved = max(self.saved, (status.get("lastCheckpoint") or {}).get("step", 0))

    def _check(self, resumed: int, step: int) -> None:
        what = (
            f"attempt {self._attempt} resumed from step {resumed} and was at {step}; {self._owed} was saved before it"
        )
        assert min(resumed, step) >= self._owed, what
        if self._owed:
            self.went_on.setdefault(self._attempt, f"{resumed} where {self._owed} was saved")
