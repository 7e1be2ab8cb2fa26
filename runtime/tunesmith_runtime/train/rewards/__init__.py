"""Rewards of completions: each module defines one `Scorer`, and SCORERS finds it by its type in the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.methods import RewardType
from tunesmith_runtime.data.records import Prompt, Record
from tunesmith_runtime.train.rewards.accuracy import ACCURACY
from tunesmith_runtime.train.rewards.base import Completion, Scorer
from tunesmith_runtime.train.rewards.format import FORMAT
from tunesmith_runtime.train.rewards.length import LENGTH

__all__ = ["SCORERS", "Completion", "Scorer", "row_check"]

SCORERS: Mapping[RewardType, Scorer] = {scorer.type: scorer for scorer in (ACCURACY, FORMAT, LENGTH)}


def row_check(job: FineTuneJobSpec) -> Callable[[Record], None]:
    """Return what raises RowError for a prompt whose columns a reward of the job cannot be computed from.

    Raises RunFailure (BadSpec) for a reward that cannot be computed at all.
    """
    checks = [SCORERS[reward.type].check(reward) for reward in job.rewards or ()]

    def check(record: Record) -> None:
        if isinstance(record, Prompt):
            for check_columns in checks:
                check_columns(record.columns)

    return check
