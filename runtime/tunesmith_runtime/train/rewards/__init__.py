"""Rewards of completions: each module defines one `Scorer`, and SCORERS finds it by its type in the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.methods import RolloutEngine
from tunesmith_api.rewards import Reward, RewardType
from tunesmith_runtime.data.records import MultimodalPrompt, Prompt, Record
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.train.rewards.accuracy import ACCURACY
from tunesmith_runtime.train.rewards.base import Completion, Rate, Scorer
from tunesmith_runtime.train.rewards.code import CODE
from tunesmith_runtime.train.rewards.edits import EDITS
from tunesmith_runtime.train.rewards.format import FORMAT
from tunesmith_runtime.train.rewards.judge import JUDGE
from tunesmith_runtime.train.rewards.length import LENGTH
from tunesmith_runtime.train.rewards.model import MODEL
from tunesmith_runtime.train.rewards.overlap import OVERLAP
from tunesmith_runtime.workdir import Work

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup

__all__ = ["SCORERS", "Completion", "Rater", "Scorer", "open_raters", "row_check"]

READERS = (RewardType.MODEL, RewardType.JUDGE)
"""Rewards that read the prompt as well as the completion."""
SCORERS: Mapping[RewardType, Scorer] = {
    scorer.type: scorer for scorer in (ACCURACY, FORMAT, LENGTH, OVERLAP, EDITS, MODEL, JUDGE, CODE)
}


@dataclass(frozen=True)
class Rater:
    """A reward that is ready to rate completions."""

    reward: Reward
    rate: Rate


def open_raters(setup: Setup) -> Sequence[Rater]:
    """Return the rewards of a job, ready to rate. Raises RunFailure."""
    return [Rater(reward, SCORERS[reward.type].open(reward, setup)) for reward in setup.job.rewards or ()]


def row_check(job: FineTuneJobSpec, work: Work) -> Callable[[Record], None]:
    """Return a check of a prompt, which raises RowError if a reward of the job cannot rate its completions.

    `work` has the further models, if they have been fetched. Raises RunFailure (BadSpec) for a reward that cannot rate
    any completion.
    """
    checks = [SCORERS[reward.type].check(reward, work) for reward in job.rewards or ()]

    def check(record: Record) -> None:
        if isinstance(record, MultimodalPrompt):
            check_images(job)
            record = record.without_media()
        if isinstance(record, Prompt):
            for check_prompt in checks:
                check_prompt(record)

    return check


def check_images(job: FineTuneJobSpec) -> None:
    """Raise RowError where a reward or the engine of the rollouts does not read the images of a prompt."""
    if readers := [reward.name for reward in job.rewards or () if reward.type in READERS]:
        raise RowError(
            f"has images, and the reward {readers[0]} reads the text of prompts alone",
            f"use rewards of other types than {' and '.join(READERS)}",
        )
    if job.rollouts and job.rollouts.engine is RolloutEngine.VLLM:
        raise RowError(
            "has images, and rollouts by vllm sample from text alone in this version",
            f"remove spec.{job.method}.engine",
        )
