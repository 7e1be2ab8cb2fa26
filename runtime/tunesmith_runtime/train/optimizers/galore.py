"""GaLore (Zhao et al., 2024, https://arxiv.org/abs/2403.03507): Adam in the directions in which the gradient of a matrix is largest.

A step is `SCALE` of Adam's step in those directions, as in the paper, so that learning rates are larger than AdamW's.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from tunesmith_runtime.train.optimizers.combined import CombinedOptimizer
from tunesmith_runtime.train.optimizers.low_rank import LowRank, low_rank

SCALE = 0.25


class GaLore(LowRank):
    """GaLore for matrices."""

    def project(self, gradient: Tensor, rank: int, seed: int) -> Tensor:
        """Return the first left singular vectors of the gradient."""
        return torch.linalg.svd(gradient.float(), full_matrices=False).U[:, :rank].mT.contiguous()

    def update(self, gradient: Tensor, state: dict[str, Any], small: Tensor, direction: Tensor) -> Tensor:
        """Return Adam's step in those directions."""
        return SCALE * (state["projection"].mT @ direction)


def create(model: nn.Module, decaying: Collection[str], arguments: TrainingArguments) -> CombinedOptimizer:
    """Return GaLore for the trained weights of `model`. Weights with a name in `decaying` decay."""
    return low_rank(GaLore, model, decaying, arguments)
