"""What all tuners share that add an adapter of PEFT to a frozen base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.status import ArtifactType
from tunesmith_api.training import Lora
from tunesmith_api.training import Tuner as TunerName
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.tasks import task_of
from tunesmith_runtime.train.tuners.base import Tuner

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

MakeConfig = Callable[[FineTuneJobSpec, Lora, Any], "PeftConfig"]
"""Makes the configuration of an adapter from a job, its block lora and the targets: names of layers, or PEFT's keyword for all."""


def begins_as_base(job: FineTuneJobSpec) -> bool:
    """Return whether the model with its adapter computes the same as its base before the first step."""
    return job.initial_adapter is None


def add_adapter(
    model: PreTrainedModel, job: FineTuneJobSpec, initial: Path | None = None, *, make_config: MakeConfig
) -> PeftModel:
    """Return `model` with a new adapter in float32, or with the one in the folder `initial`.

    Raises RunFailure: BadSpec for settings that PEFT refuses, BadModel for an adapter that does not fit.
    """
    from peft import get_peft_model

    from tunesmith_runtime.train.targets import default_targets, linear_names

    lora = job.lora or Lora()
    config = make_config(job, lora, lora.target_modules or default_targets(model))
    config.task_type = task_of(job.method).adapter_type
    if initial is not None:
        return load_initial(model, initial, config)
    try:
        return with_float32_head(get_peft_model(model, config))
    except TypeError as error:  # a kind of layer that this adapter cannot be added to
        raise _refused(error, f"set spec.tuner: {TunerName.LORA}") from error
    except ValueError as error:
        names = f"set spec.lora.targetModules to some of {', '.join(linear_names(model))}"
        raise _refused(error, "set spec.lora.dropout: 0" if lora.dropout else names) from error


def load_initial(model: PreTrainedModel, folder: Path, config: PeftConfig) -> PeftModel:
    """Return `model` with the adapter in `folder`, to be trained with the dropout of `config`. Raises RunFailure (BadModel)."""
    from tunesmith_runtime.modelcheck.loading import with_adapter

    dropout = {name: value for name, value in config.to_dict().items() if name.endswith("dropout")}
    return with_adapter(model, "default", folder, trained_with=dropout)


def with_float32_head(model: PeftModel) -> PeftModel:
    """Return `model` with a trained head in float32, as the adapter is. PEFT leaves it in the number format of the base."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return model


def _refused(error: Exception, hint: str) -> RunFailure:
    return RunFailure(FailureClass.BAD_SPEC, f"the adapter does not fit the model: {error}", hint)


def check_adapter(model: PreTrainedModel, job: FineTuneJobSpec, make_config: MakeConfig) -> None:
    """Refuse layers that `model` does not have, and whatever else PEFT refuses. Adapts `model`."""
    from tunesmith_runtime.train.targets import check_targets

    check_targets(model, job.lora or Lora(), job.export.merge)
    add_adapter(model, job, make_config=make_config)


def record_trained(model: PeftModel, dtype: torch.dtype) -> Callable[[], bool]:
    """Record a checksum of each trained weight; the returned function tests whether one has changed.

    `dtype` is that of the base: weights of an adapter are stored in float32.
    """
    import torch

    from tunesmith_runtime.train.weight_change import stored_bits

    def bits() -> dict[str, int]:
        trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
        return {name: stored_bits(weight, torch.float32, 0.0) for name, weight in trained}

    before = bits()
    return lambda: bits() != before


def load_options(job: FineTuneJobSpec, compute: torch.dtype, device: str) -> Mapping[str, Any]:
    """Return the options of a base that is only read: it is loaded in the number format of the computation."""
    return {"dtype": compute}


def adapter_tuner(
    name: TunerName,
    make_config: MakeConfig,
    record_weights: Callable[[Any, torch.dtype], Callable[[], bool]] = record_trained,
    **fields: Any,
) -> Tuner:
    """Return the description of a tuner that adds such an adapter; `fields`: those in which it differs from the others."""
    return Tuner(
        name,
        artifact=ArtifactType.ADAPTER,
        record_weights=record_weights,
        **{
            "load_options": load_options,
            "check": partial(check_adapter, make_config=make_config),
            "apply": partial(add_adapter, make_config=make_config),
            **fields,
        },
    )
