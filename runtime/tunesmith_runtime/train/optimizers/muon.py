"""Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/): the momentum of a matrix is made orthogonal, which gives all
directions a step of the same size. All other weights are trained by AdamW.

Steps have the size of AdamW's (Liu et al., 2025, https://arxiv.org/abs/2502.16982), so that learning rates carry over.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn
from torch.optim import Muon
from transformers import TrainingArguments

from tunesmith_runtime.train.optimizers.combined import CombinedOptimizer, Groups, beside_adamw


def create(model: nn.Module, decaying: Collection[str], arguments: TrainingArguments) -> CombinedOptimizer:
    """Return Muon for the trained weights of `model`. Weights with a name in `decaying` decay."""

    def matrices(groups: Groups) -> Muon:
        return Muon(groups, lr=arguments.learning_rate, adjust_lr_fn="match_rms_adamw")

    return beside_adamw(matrices, model, decaying, arguments)
