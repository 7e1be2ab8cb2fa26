"""The weights of a model with its adapter merged into a copy, one after the other. Merging in place and undoing it would round them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

BASE_LAYER, ADAPTER = ".base_layer", ".lora_"
"""PEFT's suffix of the path of an adapted layer's own weights, and its infix in names of weights of LoRA."""


@torch.no_grad()
def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the name of each weight in the base's files, and its value with plain LoRA merged into it, in the weight's format.

    Weights that share memory come once.
    """
    base: nn.Module = model.get_base_model() if isinstance(model, PeftModel) else model
    for name, weight in base.named_parameters():
        path, _, own = name.rpartition(".")
        if path.endswith(BASE_LAYER):
            path = path.removesuffix(BASE_LAYER)
            yield f"{path}.{own}", _merged(base.get_submodule(path), weight) if own == "weight" else weight.detach()
        elif ADAPTER not in name:
            yield name, weight.detach()


def _merged(layer: Any, weight: Tensor) -> Tensor:
    """Return the weight of an adapted layer with its active adapters, added in float32."""
    total = weight.detach().float()
    for adapter in layer.active_adapters:
        total = total + layer.get_delta_weight(adapter).float()
    return total.to(weight.dtype)
