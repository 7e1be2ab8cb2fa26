"""Detects adapters whose rows the engine transformers cannot mix with others in a batch: each request to them would fail."""

from __future__ import annotations

from torch import nn

from tunesmith_api.engines import MERGE
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure

MIXED = (nn.Linear, nn.Embedding)
"""Kinds of modules trained as a whole of which PEFT computes each row of a batch by the row's own adapter."""


def check_mixable(name: str, model: nn.Module) -> None:
    """Check that PEFT can mix rows of an adapter that was added to `model` with others. Raises RunFailure (BadSpec)."""
    from peft.tuners.lora.layer import ParamWrapper
    from peft.utils.other import ModulesToSaveWrapper

    if any(isinstance(layer, ParamWrapper) for layer in model.modules()):
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"adapter {name} adapts the weights of experts, which the engine transformers cannot serve beside a base model",
            MERGE,
        )
    wrapped = [(path, layer) for path, layer in model.named_modules() if isinstance(layer, ModulesToSaveWrapper)]
    others = [path for path, layer in wrapped if not isinstance(layer.original_module, MIXED)]
    if others:
        parts = " and ".join(dict.fromkeys(path.rsplit(".", 1)[-1] for path in others))
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"adapter {name} was trained with {parts} beside its layers: of whole modules, the engine transformers serves "
            "embeddings and output heads beside a base model",
            MERGE,
        )
