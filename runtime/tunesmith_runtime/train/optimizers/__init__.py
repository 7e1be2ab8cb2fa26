"""Optimizers: what transformers calls them, the packages that they import, and the memory of their state.

An optimizer that transformers does not have is defined by a module here, which is imported when the optimizer is created.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tunesmith_api.training import Optimizer as OptimizerName

Create = Callable[..., Any]
"""Creates an optimizer of torch from a model, the names of the weights that decay, and the arguments of the training."""
BITSANDBYTES = frozenset({"bitsandbytes"})


@dataclass(frozen=True)
class Optimizer:
    """An optimizer."""

    argument: str
    """Value of transformers.TrainingArguments.optim; it has no effect if there is `create`."""
    state_bytes: float
    """Bytes of its state for each trained weight."""
    embedding_state_bytes: float | None = None
    """The same for embeddings and the output head, if it differs."""
    needs: frozenset[str] = frozenset()
    """Optional packages that it imports; all others stay hidden (`train.imports`)."""
    plain: str | None = None
    """The argument with `training.kernels: plain`, if it differs."""
    create: Create | None = None
    """Creates the optimizer if transformers does not have it."""


def _module(name: str) -> Create:
    """Return the function `create` of a module of this package, which imports torch when it is called."""
    return lambda *arguments: import_module(f"{__name__}.{name}").create(*arguments)


OPTIMIZERS: Mapping[OptimizerName, Optimizer] = {
    OptimizerName.ADAMW: Optimizer("adamw_torch_fused", state_bytes=8, plain="adamw_torch"),
    OptimizerName.ADAMW_8BIT: Optimizer("adamw_bnb_8bit", state_bytes=2, needs=BITSANDBYTES),
    OptimizerName.PAGED_ADAMW_8BIT: Optimizer("paged_adamw_8bit", state_bytes=2, needs=BITSANDBYTES),
    # A row and a column of numbers for each matrix (Shazeer and Stern, 2018).
    OptimizerName.ADAFACTOR: Optimizer("adafactor", state_bytes=0.02),
    OptimizerName.LION: Optimizer("lion_32bit", state_bytes=4, needs=BITSANDBYTES),
    OptimizerName.MUON: Optimizer("adamw_torch", state_bytes=4, embedding_state_bytes=8, create=_module("muon")),
    # Two moments and the projection, each of a quarter of the rows.
    OptimizerName.GALORE: Optimizer("adamw_torch", state_bytes=3, embedding_state_bytes=8, create=_module("galore")),
    OptimizerName.APOLLO: Optimizer("adamw_torch", state_bytes=3, embedding_state_bytes=8, create=_module("apollo")),
    OptimizerName.LION_8BIT: Optimizer("lion_8bit", state_bytes=1, needs=BITSANDBYTES),
}
