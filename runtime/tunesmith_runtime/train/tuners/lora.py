"""Low-rank adaptation (Hu et al., 2021): the base is frozen, and linear layers get an update of low rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.training import Lora
from tunesmith_api.training import Tuner as TunerName
from tunesmith_runtime.train.tuners.adapter import adapter_tuner, record_trained

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from torch import Tensor


OUTWARD = ".lora_B."
"""Part of the names of the matrices B of linear layers."""


def config(job: FineTuneJobSpec, lora: Lora, targets: Any) -> LoraConfig:
    """Return PEFT's configuration."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_rslora=lora.use_rslora,
    )


def record_weights(model: PeftModel, dtype: torch.dtype) -> Callable[[], bool]:
    """Return a function that tests whether the adapter has an effect. A new adapter has none: its matrices B are zero.
    One that has an effect before the training is tested for any change."""
    from tunesmith_runtime.train.weight_change import has_effect

    if any(bool(weight.any()) for name, weight in model.named_parameters() if OUTWARD in name):
        return record_trained(model, dtype)
    return lambda: any(has_effect(update, weight) for update, weight in updates(model))


def updates(model: PeftModel) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the update of each adapted layer and the weight that it is added to."""
    import torch
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper
    from peft.utils.integrations import dequantize_module_weight

    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            (name,) = layer.active_adapters
            with torch.no_grad():
                update = layer.get_delta_weight(name)
            yield (
                update,
                layer.get_param()
                if isinstance(layer, ParamWrapper)
                else dequantize_module_weight(layer.get_base_layer()),
            )


LORA = adapter_tuner(TunerName.LORA, config, record_weights)
