"""Records of answers that are compared or rated: each answer is one example, after the prompt that a server would build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tunesmith_runtime.data.records import Answered, Feedback, Preference, Record


@dataclass(frozen=True)
class Rated:
    """The answers of a record, and the number that belongs to them."""

    answers: tuple[Answered, ...]
    value: float | None = None


def preference(record: Preference) -> Rated:
    """The chosen answer, then the rejected one; the margin."""
    return Rated((record.chosen, record.rejected), record.margin)


def feedback(record: Feedback) -> Rated:
    """The answer; 1 if it is good, else 0."""
    return Rated((record.answer,), float(record.is_good))


RATED: Mapping[type[Record], Callable[..., Rated]] = {Preference: preference, Feedback: feedback}
"""For each type of such records the function that returns its answers."""
