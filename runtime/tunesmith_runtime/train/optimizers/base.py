"""The description of an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer as TorchOptimizer
    from transformers import TrainingArguments


@dataclass(frozen=True)
class Optimizer:
    """A rule by which gradients change the weights. Importing it does not import torch; creating it does."""

    argument: str
    """Value of transformers.TrainingArguments.optim."""
    state_bytes: float
    """Bytes of its state for each trained weight."""
    embedding_state_bytes: float | None = None
    """The same for embeddings and the output head, if it differs."""
    needs: frozenset[str] = frozenset()
    """Optional packages that it imports; all others stay hidden (`train.imports`)."""
    create: Callable[[nn.Module, Collection[str], TrainingArguments], TorchOptimizer] | None = None
    """Creates an optimizer that transformers does not have, from a model and the names of the weights that decay; then
    `argument` has no effect."""
