"""Low-rank adaptation (Hu et al., 2021): the base is frozen, and linear layers get an update of low rank.

With `plusRatio`, the matrices B learn at a higher rate (LoRA+, Hayou et al., 2024, https://arxiv.org/abs/2402.12354)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.tuners import Lora, LoraInit
from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.train.tuners.adapter import adapter_tuner, record_trained
from tunesmith_runtime.train.tuners.base_weight import base_weight
from tunesmith_runtime.train.tuners.start import OUTWARD, record_start

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from torch import Tensor


OUTWARD_EMBEDDING = ".lora_embedding_B."
"""Part of the names of the matrices B of embeddings."""
LATER = (LoraInit.DEFAULT, LoraInit.EVA, LoraInit.LOFTQ)
"""Starts that PEFT does not make: the adapter gets its values afterwards."""


def config(job: FineTuneJobSpec, lora: Lora, targets: Any) -> LoraConfig:
    """Return PEFT's configuration."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_rslora=lora.use_rslora,
        init_lora_weights=True if lora.init in LATER else str(lora.init),  # type: ignore[arg-type]
    )


def initialize_from_rows(model: PeftModel, job: FineTuneJobSpec, rows: Iterable[Sequence[int]]) -> None:
    """Give a new adapter the values that follow from the tokens of the first rows."""
    from tunesmith_runtime.train.tuners.eva import begin_with_inputs

    if (job.lora or Lora()).init is LoraInit.EVA:
        begin_with_inputs(model, rows)


def rate_factor(job: FineTuneJobSpec) -> Callable[[str], float] | None:
    """Return the factor of the learning rate of each weight: plusRatio for matrices B."""
    ratio = (job.lora or Lora()).plus_ratio
    return ratio and (lambda name: ratio if OUTWARD in name or OUTWARD_EMBEDDING in name else 1.0)  # type: ignore[return-value]


def record_weights(model: PeftModel, dtype: torch.dtype) -> Callable[[], bool]:
    """Return a function that tests whether the adapter has an effect. A new adapter has none: its matrices B are zero.
    An adapter that has an effect before the training is tested for any change."""
    from tunesmith_runtime.train.models.weight_change import has_effect

    if any(bool(weight.any()) for name, weight in model.named_parameters() if OUTWARD in name):
        return record_trained(model, dtype)
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
            yield update, layer.get_param() if isinstance(layer, ParamWrapper) else base_weight(layer.get_base_layer())


LORA = adapter_tuner(
    TunerName.LORA,
    config,
    record_weights,
    initialize_from_rows=initialize_from_rows,
    rate_factor=rate_factor,
    record_start=record_start,
)
