"""Strategies: each module defines how processes divide a model, and STRATEGIES finds it by its name in the API."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith_api.finetunejob import Estimate, FineTuneJobSpec
from tunesmith_api.training import Strategy as StrategyName
from tunesmith_runtime.train.strategies.base import Strategy
from tunesmith_runtime.train.strategies.fsdp import Fsdp
from tunesmith_runtime.train.strategies.zero import Zero

__all__ = ["STRATEGIES", "Strategy", "strategy_of"]

STRATEGIES: Mapping[StrategyName, Strategy] = {
    StrategyName.DDP: Strategy(),
    StrategyName.FSDP: Fsdp(),
    StrategyName.ZERO1: Zero(1),
    StrategyName.ZERO2: Zero(2),
    StrategyName.ZERO3: Zero(3),
}
"""The strategies of this version; `auto` is one of them."""


def strategy_of(job: FineTuneJobSpec, processes: int, estimate: Estimate | None) -> StrategyName:
    """Return how the processes divide the model. A single process has nothing to divide, and `auto` follows the estimate."""
    strategy = job.parallelism.strategy
    if strategy is StrategyName.AUTO:
        strategy = (estimate and estimate.strategy) or StrategyName.DDP
    return StrategyName.DDP if processes == 1 else strategy
