"""Reward of a text that is nearly right: 1 minus the normalized edit distance to the answer, from 0 to 1."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith_api.rewards import Reward, RewardType
from tunesmith_runtime.answers.matching import answer_of
from tunesmith_runtime.answers.recognition import similarity
from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import kind_of
from tunesmith_runtime.train.rewards.base import Completion, Scorer, answer_in, each
from tunesmith_runtime.workdir import Work


def score(completion: Completion, reward: Reward) -> float:
    """Compare the text after the thoughts of the model with the column; 0 where a thought has no end."""
    return similarity(answer_of(completion.text) or "", str(completion.columns[reward.column]))


def check(reward: Reward, _: Work) -> Callable[[Prompt], None]:
    """Return what raises RowError for columns without a text or a number."""

    def check_text(prompt: Prompt) -> None:
        value = answer_in(prompt, reward)
        if type(value) not in (str, int, float) or not str(value).strip():
            found = "an empty string" if isinstance(value, str) else kind_of(value)
            raise RowError(
                f"has {found} in {reward.column!r}, the column of reward {reward.name}; expected a text or a number",
                "write the right answer as a text, or set spec.onBadRow: Drop",
            )

    return check_text


EDITS = Scorer(RewardType.EDITS, each(score), check)
