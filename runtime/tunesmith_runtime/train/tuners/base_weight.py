"""The weight of a layer below an adapter, whole and in floating point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def base_weight(layer: Any) -> Tensor:
    """Return the weight of a layer of a model, dequantized if bitsandbytes has quantized it.

    PEFT's `dequantize_module_weight` replaces an int8 weight on a CPU by one without scales, with which the layer cannot compute.
    """
    from peft.utils.integrations import dequantize_bnb_weight, get_bnb_param_type

    weight: Tensor = layer.weight
    if not get_bnb_param_type(weight):
        return weight
    dequantized: Tensor = dequantize_bnb_weight(weight, state=getattr(layer, "state", None))
    return dequantized
