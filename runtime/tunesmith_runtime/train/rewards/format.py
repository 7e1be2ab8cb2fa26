"""Reward of a form: 1 if a regular expression is found in the completion, else 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.methods import Reward, RewardType
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.rewards.base import Completion, Scorer

SECONDS = 1.0
"""Time that a search may take. A completion is what a model wrote, so that a pattern can meet its worst case."""


def score(completion: Completion, reward: Reward) -> float:
    """Search the pattern, whose . matches line breaks too. A search that takes too long counts as not found."""
    import regex

    pattern = reward.pattern or ""
    try:
        return float(regex.search(pattern, completion.text, flags=regex.DOTALL, timeout=SECONDS) is not None)
    except TimeoutError:
        return 0.0


def check(reward: Reward) -> Callable[[Mapping[str, Any]], None]:
    """Raise RunFailure (BadSpec) for a pattern that cannot be searched. It needs no columns."""
    import regex

    try:
        regex.compile(reward.pattern or "", flags=regex.DOTALL)
    except regex.error as error:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"rewards[].pattern {reward.pattern!r} of {reward.name} is no regular expression: {error}",
            f"correct pattern of {reward.name} in spec.rewards",
        ) from error
    return lambda _: None


FORMAT = Scorer(RewardType.FORMAT, score, check)
