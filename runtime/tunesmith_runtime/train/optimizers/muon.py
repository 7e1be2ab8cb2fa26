"""Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/): the momentum of a matrix is made orthogonal, which gives all
directions a step of the same size. All other weights are trained by AdamW.

Steps have the size of AdamW's (Liu et al., 2025, https://arxiv.org/abs/2502.16982), so that learning rates carry over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim import Muon as Matrices
from transformers import TrainingArguments


class Muon(Optimizer):
    """Muon for matrices beside AdamW for the other weights. Its parameter groups and its state are those of both."""

    def __init__(self, parts: list[Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let both parts work on the groups and the state of this optimizer, which schedules and checkpoints see."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.state = self.state
            part.param_groups = [next(groups) for _ in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change all weights once."""
        loss = closure() if closure else None
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of both parts."""
        super().load_state_dict(state_dict)
        self._share()


def create(model: nn.Module, decaying: Collection[str], arguments: TrainingArguments) -> Muon:
    """Return Muon for the trained weights of `model`, of which those with a name in `decaying` decay."""
    tables = table_weights(model)
    matrices: list[list[nn.Parameter]] = [[], []]
    others: list[list[nn.Parameter]] = [[], []]
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            kind = matrices if weight.ndim == 2 and id(weight) not in tables else others
            kind[name in decaying].append(weight)
    rate, decay = arguments.learning_rate, arguments.weight_decay
    betas = (arguments.adam_beta1, arguments.adam_beta2)
    return Muon(
        [
            *([Matrices(_groups(matrices, decay), lr=rate, adjust_lr_fn="match_rms_adamw")] if any(matrices) else []),
            *([AdamW(_groups(others, decay), lr=rate, betas=betas, eps=arguments.adam_epsilon)] if any(others) else []),
        ]
    )


def _groups(weights: list[list[nn.Parameter]], decay: float) -> list[dict[str, Any]]:
    """The parameter groups of weights that do not decay and of those that do."""
    return [{"params": each, "weight_decay": rate} for each, rate in zip(weights, (0.0, decay), strict=True) if each]


def table_weights(model: nn.Module) -> set[int]:
    """Return the ids of embeddings and of the output head: a row belongs to a token, so directions mean nothing there."""
    find = getattr(model, "get_output_embeddings", None)
    head = find() if find else None
    modules = [*(each for each in model.modules() if isinstance(each, nn.Embedding)), *([head] if head else [])]
    return {id(weight) for module in modules for weight in module.parameters()}
