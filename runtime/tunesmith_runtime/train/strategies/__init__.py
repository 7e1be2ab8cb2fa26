"""Strategies: each module defines how processes divide a model, and STRATEGIES has them by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.finetunejob_status import Estimate
from tunesmith_api.training import Strategy as StrategyName
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.strategies.base import Strategy
from tunesmith_runtime.train.strategies.context_parallel import ContextParallel
from tunesmith_runtime.train.strategies.fsdp import Fsdp
from tunesmith_runtime.train.strategies.pipeline_parallel import PipelineParallel
from tunesmith_runtime.train.strategies.tensor_parallel import TensorParallel
from tunesmith_runtime.train.strategies.zero import Zero

if TYPE_CHECKING:
    from tunesmith_runtime.train.world.process_group import ProcessGroup

__all__ = ["STRATEGIES", "Strategy", "sharing_in", "strategy_in", "strategy_of"]

STRATEGIES: Mapping[str, Strategy] = {
    StrategyName.DDP: Strategy(),
    StrategyName.FSDP: Fsdp(),
    StrategyName.ZERO1: Zero(1),
    StrategyName.ZERO2: Zero(2),
    StrategyName.ZERO3: Zero(3),
    "tensor_parallel": TensorParallel(),
    "pipeline_parallel": PipelineParallel(),
    "context_parallel": ContextParallel(),
}
"""Strategies by the value of parallelism.strategy, or by the field of ProcessGroup (`shared_by`) if processes take the
same rows."""


def strategy_in(group: ProcessGroup) -> Strategy:
    """Return the strategy of a group."""
    return STRATEGIES[group.shared_by or group.strategy]


def sharing_in(job: FineTuneJobSpec, processes: int) -> tuple[int, int, int]:
    """Return the processes that share each layer, those that have some layers each, and those that have a part of each row.

    A single process has all. Raises RunFailure (BadSpec) for a remainder.
    """
    parallelism = job.parallelism
    field, together = parallelism.sharing
    if processes == 1:
        return 1, 1, 1
    if processes % together:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"parallelism.{field} {together} does not divide the {processes} devices",
            f"set spec.parallelism.{field} to a divisor of them, or remove it",
        )
    return parallelism.tensor_parallel, parallelism.pipeline_parallel, parallelism.context_parallel


def strategy_of(job: FineTuneJobSpec, processes: int, estimate: Estimate | None) -> StrategyName:
    """Return how the processes divide the model. A single process has nothing to divide, and `auto` follows the estimate."""
    strategy = job.parallelism.strategy
    if strategy is StrategyName.AUTO:
        strategy = (estimate and estimate.strategy) or StrategyName.DDP
    return StrategyName.DDP if processes == 1 else strategy
