"""Optimizers: what transformers calls them, the packages that they import, and the memory of their state.

A module here defines one that transformers does not have; `own.CREATORS` finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith_api.training import Optimizer as OptimizerName

BITSANDBYTES = frozenset({"bitsandbytes"})


@dataclass(frozen=True)
class Optimizer:
    """A rule by which gradients change the weights."""

    argument: str
    """Value of transformers.TrainingArguments.optim; without effect for our own."""
    state_bytes: float
    """Bytes of its state for each trained weight."""
    embedding_state_bytes: float | None = None
    """The same for embeddings and the output head, if it differs."""
    needs: frozenset[str] = frozenset()
    """Optional packages that it imports; all others stay hidden (`train.imports`)."""


OPTIMIZERS: Mapping[OptimizerName, Optimizer] = {
    OptimizerName.ADAMW: Optimizer("adamw_torch_fused", state_bytes=8),
    OptimizerName.ADAMW_8BIT: Optimizer("adamw_bnb_8bit", state_bytes=2, needs=BITSANDBYTES),
    OptimizerName.PAGED_ADAMW_8BIT: Optimizer("paged_adamw_8bit", state_bytes=2, needs=BITSANDBYTES),
    # A row and a column of numbers for each matrix (Shazeer and Stern, 2018).
    OptimizerName.ADAFACTOR: Optimizer("adafactor", state_bytes=0.02),
    OptimizerName.LION: Optimizer("lion_32bit", state_bytes=4, needs=BITSANDBYTES),
    OptimizerName.MUON: Optimizer("adamw_torch", state_bytes=4, embedding_state_bytes=8),
    OptimizerName.LION_8BIT: Optimizer("lion_8bit", state_bytes=1, needs=BITSANDBYTES),
}
