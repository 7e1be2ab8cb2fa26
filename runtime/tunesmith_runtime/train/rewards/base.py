"""The description of a reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith_api.rewards import Reward, RewardType
from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.workdir import Work

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup


@dataclass(frozen=True)
class Completion:
    """A completion of a prompt by the model."""

    text: str
    """Without special tokens."""
    tokens: int
    most_tokens: int
    """maxCompletionLength of the method."""
    prompt: Prompt
    """With the further columns of its row."""
    is_finished: bool = True
    """Whether it has ended within maxCompletionLength."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """Further columns of the prompt's row."""
        return self.prompt.columns


Rate = Callable[[Sequence[Completion]], Sequence[float]]
"""Return the reward of each completion before its weight."""


@dataclass(frozen=True)
class Scorer:
    """How a type of reward is computed."""

    type: RewardType
    open: Callable[[Reward, Setup], Rate]
    """Return a function that rates completions in a training. Raises RunFailure."""
    check: Callable[[Reward, Work], Callable[[Prompt], None]] = lambda _, __: lambda _: None
    """Return a check of a prompt, which raises RowError if the reward cannot rate its completions. Raises RunFailure (BadSpec) for
    settings with which the reward cannot rate any completion."""


def each(score: Callable[[Completion, Reward], float]) -> Callable[[Reward, Setup], Rate]:
    """Return the `open` of a reward that scores each completion on its own."""
    return lambda reward, _: lambda completions: [score(completion, reward) for completion in completions]


def answer_in(prompt: Prompt, reward: Reward) -> Any:
    """Return the right answer in the column of a reward. Raises RowError if the row lacks it."""
    answer = prompt.columns.get(reward.column)
    if answer is None:
        known = ", ".join(sorted(prompt.columns)) or "none"
        raise RowError(
            f"has no answer in {reward.column!r}, the column of reward {reward.name}; its further columns are {known}",
            f"set column of {reward.name} in spec.rewards to the column with the right answer, or rename it by spec.datasets[].columns",
        )
    return answer
