"""Reward of a form: 1 if a regular expression is found in the completion, else 0.

The expression is RE2's, whose search takes time in proportion to the text: a completion is what a model wrote, and could meet the worst case
of another engine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.rewards import Reward, RewardType
from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.rewards.base import Completion, Scorer, each
from tunesmith_runtime.workdir import Work


@cache
def compiled(pattern: str) -> Any:
    """Return the compiled expression, whose . matches line breaks too. Raises re2.error."""
    import re2

    options = re2.Options()
    options.dot_nl, options.log_errors = True, False
    return re2.compile(pattern, options=options)


def score(completion: Completion, reward: Reward) -> float:
    """Search the pattern in the text."""
    return float(compiled(reward.pattern or "").search(completion.text) is not None)


def check(reward: Reward, _: Work) -> Callable[[Prompt], None]:
    """Raise RunFailure (BadSpec) for a pattern that RE2 does not compile. It needs no columns."""
    import re2

    try:
        compiled(reward.pattern or "")
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"rewards[].pattern {reward.pattern!r} of {reward.name} is no regular expression of RE2: {reason}",
            f"write pattern of {reward.name} in spec.rewards in the syntax of RE2, which has no lookaround and no backreferences",
        ) from error
    return lambda _: None


FORMAT = Scorer(RewardType.FORMAT, each(score), check)
