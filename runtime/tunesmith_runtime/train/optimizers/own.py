"""Optimizers that transformers does not have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from torch import nn
from torch.optim import Optimizer
from transformers import TrainingArguments

from tunesmith_api.training import Optimizer as OptimizerName
from tunesmith_runtime.train.optimizers import muon

CREATORS: Mapping[OptimizerName, Callable[[nn.Module, Collection[str], TrainingArguments], Optimizer]] = {
    OptimizerName.MUON: muon.create,
}
"""Name -> creates it from a model, the names of the weights that decay, and the arguments of the training."""
