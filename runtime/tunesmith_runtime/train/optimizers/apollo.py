"""APOLLO (Zhu et al., 2024, https://arxiv.org/abs/2412.05270): the gradient itself, each column scaled as Adam would scale it.

The scales come from a random projection of the gradient. A step is enlarged by the square root of the ratio of the
dimensions, by which the projection shortens columns on average, so that steps have the size of AdamW's and learning
rates carry over. A step is at most `GROWTH` times as long as the one before.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from tunesmith_runtime.train.optimizers.combined import CombinedOptimizer
from tunesmith_runtime.train.optimizers.low_rank import LowRank, low_rank

GROWTH = 1.01


class Apollo(LowRank):
    """APOLLO for matrices."""

    def project(self, gradient: Tensor, rank: int, seed: int) -> Tensor:
        """Return a random projection, which keeps the length of a column in the mean."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(rank, gradient.shape[0], generator=generator) / rank**0.5
        return rows.to(gradient.device)

    def update(self, gradient: Tensor, state: dict[str, Any], small: Tensor, direction: Tensor) -> Tensor:
        """Return the scaled gradient."""
        tiny = torch.finfo(small.dtype).tiny
        scales = direction.norm(dim=0) / small.norm(dim=0).clamp(min=tiny)
        step = gradient * scales * (gradient.shape[0] / small.shape[0]) ** 0.5
        length = step.norm()
        if "length" in state:
            step *= (GROWTH * state["length"] / length.clamp(min=tiny)).clamp(max=1)
        state["length"] = step.norm()
        return step


def create(model: nn.Module, decaying: Collection[str], arguments: TrainingArguments) -> CombinedOptimizer:
    """Return APOLLO for the trained weights of `model`. Weights with a name in `decaying` decay."""
    return low_rank(Apollo, model, decaying, arguments)
