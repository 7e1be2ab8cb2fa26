"""Low-rank adaptation (Hu et al., 2021): the base is frozen, every linear layer but the head gets an update of low rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor
from transformers import PreTrainedModel

from tunesmith_api.common import ArtifactType
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec, Lora
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.targets import check_targets, default_targets, linear_names
from tunesmith_runtime.train.weight_change import has_effect

ARTIFACT = ArtifactType.ADAPTER
FROZEN_BASE = True
"""The base is only read, so it may be loaded in the number format that the device computes in."""


def check(model: PreTrainedModel, job: FineTuneJobSpec) -> None:
    """Refuse layers that `model`, which may be without weights, does not have, and whatever else peft refuses.

    Adapts `model`. Raises RunFailure (BadSpec).
    """
    check_targets(model, job.lora or Lora(), job.export.merge)
    apply(model, job)


def apply(model: PreTrainedModel, job: FineTuneJobSpec) -> PeftModel:
    """`model` with fresh adapters in float32; their initialization follows torch's seed.

    Raises RunFailure (BadSpec) for settings that peft refuses.
    """
    lora = job.lora or Lora()
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or default_targets(model),
        use_rslora=lora.use_rslora,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        names = f"set spec.lora.targetModules to some of {', '.join(linear_names(model))}"
        hint = "set spec.lora.dropout: 0" if lora.dropout else names
        raise RunFailure(FailureClass.BAD_SPEC, f"the block lora does not fit the model: {error}", hint) from error


def changes(model: PeftModel, dtype: torch.dtype) -> Callable[[], bool]:
    """Return a function: whether the adapter has an effect. A fresh one has none, as its matrices B are zero."""
    return lambda: any(has_effect(update, weight) for update, weight in updates(model))


@torch.no_grad()
def updates(model: PeftModel) -> Iterator[tuple[Tensor, Tensor]]:
    """The update of each adapted layer and the weight that it is added to."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            (name,) = layer.active_adapters
            base = layer.get_param() if isinstance(layer, ParamWrapper) else layer.get_base_layer().weight
            yield layer.get_delta_weight(name), base
