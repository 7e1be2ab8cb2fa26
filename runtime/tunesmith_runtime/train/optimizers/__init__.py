"""Optimizers: OPTIMIZERS finds each by its name in the API. A module here defines one that transformers does not have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from tunesmith_api.training import Optimizer as OptimizerName
from tunesmith_runtime.train.optimizers.base import Optimizer

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer as TorchOptimizer
    from transformers import TrainingArguments

__all__ = ["OPTIMIZERS", "Optimizer"]

BITSANDBYTES = frozenset({"bitsandbytes"})


def _muon(model: nn.Module, decaying: Collection[str], arguments: TrainingArguments) -> TorchOptimizer:
    from tunesmith_runtime.train.optimizers import muon

    return muon.create(model, decaying, arguments)


OPTIMIZERS: Mapping[OptimizerName, Optimizer] = {
    OptimizerName.ADAMW: Optimizer("adamw_torch_fused", state_bytes=8),
    OptimizerName.ADAMW_8BIT: Optimizer("adamw_bnb_8bit", state_bytes=2, needs=BITSANDBYTES),
    OptimizerName.PAGED_ADAMW_8BIT: Optimizer("paged_adamw_8bit", state_bytes=2, needs=BITSANDBYTES),
    # A row and a column of numbers for each matrix (Shazeer and Stern, 2018).
    OptimizerName.ADAFACTOR: Optimizer("adafactor", state_bytes=0.02),
    OptimizerName.LION: Optimizer("lion_32bit", state_bytes=4, needs=BITSANDBYTES),
    OptimizerName.MUON: Optimizer("adamw_torch", state_bytes=4, embedding_state_bytes=8, create=_muon),
    OptimizerName.LION_8BIT: Optimizer("lion_8bit", state_bytes=1, needs=BITSANDBYTES),
}
