"""Moments of a matrix's gradient in a space of fewer dimensions, as GaLore and APOLLO keep them instead of Adam's.

A gradient is transposed if it has more rows than columns. A projection, a matrix of (rank, rows), reduces it to (rank,
columns). A new projection is chosen every `GAP` steps; the moments are kept, as in both papers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import TrainingArguments

from tunesmith_runtime.train.optimizers.combined import CombinedOptimizer, Groups, beside_adamw

SHARE = 4
"""Rows of a gradient for each dimension that is kept: the rank of the papers' largest models."""
GAP = 200
"""Steps with one projection."""
LEAST = 16
"""Rows and columns of a matrix that is worth a projection; AdamW trains smaller ones."""


class LowRank(Optimizer):
    """Changes matrices by moments of projected gradients; `lr`, `betas`, `eps` and `weight_decay` are those of AdamW."""

    def __init__(self, groups: Groups, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @abstractmethod
    def project(self, gradient: Tensor, rank: int, seed: int) -> Tensor:
        """Return a projection of (rank, rows) for `gradient` and the gradients of the next steps."""

    @abstractmethod
    def update(self, gradient: Tensor, state: dict[str, Any], small: Tensor, direction: Tensor) -> Tensor:
        """Return the step of a matrix, for a learning rate of 1: `small` is its projected gradient, `direction` Adam's step of that."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change all matrices once."""
        loss = closure() if closure else None
        index = 0
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._change(weight, weight.grad, group, index)
                index += 1
        return loss

    def _change(self, weight: Tensor, gradient: Tensor, group: dict[str, Any], index: int) -> None:
        state = self.state[weight]
        is_tall = gradient.shape[0] > gradient.shape[1]
        turned = gradient.mT if is_tall else gradient
        done = state.get("step", 0)
        if done % GAP == 0:
            rank = -(-turned.shape[0] // SHARE)
            state["projection"] = self.project(turned, rank, seed=(done << 20) + index).to(gradient.dtype)
        state["step"] = done + 1
        small = state["projection"] @ turned
        step = self.update(turned, state, small, adam_direction(small, state, group["betas"], group["eps"]))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(step.mT if is_tall else step, alpha=group["lr"])


def adam_direction(gradient: Tensor, state: dict[str, Any], betas: tuple[float, float], eps: float) -> Tensor:
    """Return Adam's step for a learning rate of 1, with the moments in `state`, which it updates."""
    if "exp_avg" not in state:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    mean, square = state["exp_avg"], state["exp_avg_sq"]
    mean.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    first, second = (1 - beta ** state["step"] for beta in betas)
    return (mean / first) / ((square / second).sqrt() + eps)


def low_rank(
    kind: type[LowRank], model: nn.Module, decaying: Collection[str], arguments: TrainingArguments
) -> CombinedOptimizer:
    """Return an optimizer of this kind for the matrices of `model` beside AdamW; weights with a name in `decaying` decay."""
    betas = (arguments.adam_beta1, arguments.adam_beta2)

    def matrices(groups: Groups) -> LowRank:
        return kind(groups, arguments.learning_rate, betas, arguments.adam_epsilon)

    return beside_adamw(matrices, model, decaying, arguments, LEAST)
