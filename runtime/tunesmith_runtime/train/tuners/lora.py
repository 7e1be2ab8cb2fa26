"""Low-rank adaptation (Hu et al., 2021): the base is frozen, and linear layers get an update of low rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.status import ArtifactType
from tunesmith_api.training import Lora
from tunesmith_api.training import Tuner as TunerName
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.tuners.base import Tuner

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel


def check(model: PreTrainedModel, job: FineTuneJobSpec) -> None:
    """Refuse layers that `model` does not have, and whatever else peft refuses. Adapts `model`."""
    from tunesmith_runtime.train.targets import check_targets

    check_targets(model, job.lora or Lora(), job.export.merge)
    apply(model, job)


def apply(model: PreTrainedModel, job: FineTuneJobSpec) -> PeftModel:
    """Return `model` with new adapters in float32. Raises RunFailure (BadSpec) for settings that peft refuses."""
    from peft import LoraConfig, get_peft_model

    from tunesmith_runtime.train.targets import default_targets, linear_names

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


def record_weights(model: PeftModel, dtype: torch.dtype) -> Callable[[], bool]:
    """Return a function that tests whether the adapter has an effect. A new adapter has none: its matrices B are zero."""
    from tunesmith_runtime.train.weight_change import has_effect

    return lambda: any(has_effect(update, weight) for update, weight in updates(model))


def updates(model: PeftModel) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the update of each adapted layer and the weight that it is added to."""
    import torch
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper

    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            (name,) = layer.active_adapters
            with torch.no_grad():
                update = layer.get_delta_weight(name)
            yield update, layer.get_param() if isinstance(layer, ParamWrapper) else layer.get_base_layer().weight


LORA = Tuner(
    TunerName.LORA,
    artifact=ArtifactType.ADAPTER,
    has_frozen_base=True,
    check=check,
    apply=apply,
    record_weights=record_weights,
)
