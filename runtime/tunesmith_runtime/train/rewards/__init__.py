"""Rewards of completions: each module defines one `Scorer`, and SCORERS finds it by its type in the API."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith_api.methods import RewardType
from tunesmith_runtime.train.rewards.accuracy import ACCURACY
from tunesmith_runtime.train.rewards.base import Completion, Scorer
from tunesmith_runtime.train.rewards.format import FORMAT
from tunesmith_runtime.train.rewards.length import LENGTH

__all__ = ["SCORERS", "Completion", "Scorer"]

SCORERS: Mapping[RewardType, Scorer] = {scorer.type: scorer for scorer in (ACCURACY, FORMAT, LENGTH)}
