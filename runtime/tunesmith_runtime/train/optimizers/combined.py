"""Optimizers that treat the matrices of a model apart from all other weights, which AdamW trains."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from transformers import TrainingArguments

Groups = list[dict[str, Any]]
"""Parameter groups of an optimizer."""


class CombinedOptimizer(Optimizer):
    """Several optimizers as one. It has the parameter groups and the state of all of them."""

    def __init__(self, parts: list[Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on the groups and the state of this optimizer, which schedules and checkpoints see."""
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
        """Load the state of all parts."""
        super().load_state_dict(state_dict)
        self._share()


def beside_adamw(
    make: Callable[[Groups], Optimizer],
    model: nn.Module,
    decaying: Collection[str],
    arguments: TrainingArguments,
    least: int = 1,
) -> CombinedOptimizer:
    """Return the optimizer that `make` returns for matrices beside AdamW for the other trained weights of `model`.

    Weights with a name in `decaying` decay. Matrices with fewer than `least` rows or columns are among the others.
    """
    tables = table_weights(model)
    matrices: list[list[nn.Parameter]] = [[], []]
    others: list[list[nn.Parameter]] = [[], []]
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            is_matrix = weight.ndim == 2 and id(weight) not in tables and min(weight.shape) >= least
            (matrices if is_matrix else others)[name in decaying].append(weight)
    rate, decay = arguments.learning_rate, arguments.weight_decay
    betas = (arguments.adam_beta1, arguments.adam_beta2)
    return CombinedOptimizer(
        [
            *([make(_groups(matrices, decay))] if any(matrices) else []),
            *([AdamW(_groups(others, decay), lr=rate, betas=betas, eps=arguments.adam_epsilon)] if any(others) else []),
        ]
    )


def _groups(weights: list[list[nn.Parameter]], decay: float) -> Groups:
    """The parameter groups of weights that do not decay and of those that do."""
    return [{"params": each, "weight_decay": rate} for each, rate in zip(weights, (0.0, decay), strict=True) if each]


TOKEN_ROWS = "trainable_tokens_delta"
"""Attribute of PEFT's layers with the embeddings of single tokens."""


def table_weights(model: nn.Module) -> set[int]:
    """Return the ids of embeddings and of the output head: a row belongs to a token, so directions mean nothing there."""
    find = getattr(model, "get_output_embeddings", None)
    head = find() if find else None
    tables = (each for each in model.modules() if isinstance(each, nn.Embedding) or hasattr(each, TOKEN_ROWS))
    modules = [*tables, *([head] if head else [])]
    return {id(weight) for module in modules for weight in module.parameters()}
