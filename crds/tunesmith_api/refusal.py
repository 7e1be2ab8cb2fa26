"""A refusal of a spec: the message, and what to write instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """Why a spec is refused, and what to write instead."""

    message: str
    hint: str

    def __str__(self) -> str:
        """Return both parts in a line, for interfaces with a single field."""
        return f"{self.message}; {self.hint}"


def combine(refusals: Sequence[Refusal]) -> Refusal:
    """Return several refusals as one, with each hint once."""
    hints = dict.fromkeys(refusal.hint for refusal in refusals if refusal.hint)
    return Refusal("; ".join(refusal.message for refusal in refusals), "; ".join(hints))
