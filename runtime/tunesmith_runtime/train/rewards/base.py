"""The description of a reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith_api.methods import Reward, RewardType


@dataclass(frozen=True)
class Completion:
    """What the model wrote after a prompt."""

    text: str
    """Without special tokens."""
    tokens: int
    most_tokens: int
    """maxCompletionLength of the method."""
    columns: Mapping[str, Any]
    """Further columns of the prompt's row."""


@dataclass(frozen=True)
class Scorer:
    """How a type of reward is computed."""

    type: RewardType
    score: Callable[[Completion, Reward], float]
    """Return the reward of a completion before its weight."""
    check: Callable[[Reward], Callable[[Mapping[str, Any]], None]] = lambda _: lambda _: None
    """Return what raises RowError for columns of a row that the reward cannot be computed from. Raises RunFailure (BadSpec) for
    settings of a reward with which it cannot be computed at all."""
