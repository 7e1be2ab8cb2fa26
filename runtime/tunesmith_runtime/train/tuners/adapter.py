"""Base of all tuners that add an adapter of PEFT to a frozen base."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.status import ArtifactType
from tunesmith_api.training import ModelPart, Strategy
from tunesmith_api.tuners import Lora, LoraInit
from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.tasks import adapter_type, task_of
from tunesmith_runtime.train.tuners.base import Tuner

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

MakeConfig = Callable[[FineTuneJobSpec, Lora, Any], "PeftConfig"]
"""Makes the configuration of an adapter from a job, its block lora and the targets: names of layers, or PEFT's keyword for all."""


def compares_with_base(job: FineTuneJobSpec) -> bool:
    """Return whether the reference, the model before the training, is the base without the adapter. It is not if the
    adapter has been trained before, or begins with a part of the base."""
    return job.initial_adapter is None and not (job.lora or Lora()).init.has_effect


def check_reference(job: FineTuneJobSpec) -> None:
    """Refuse a strategy with which a method cannot compare the model with an adapter as it was: stage 3 of ZeRO fetches weights ahead of
    the layers, so that no values can be exchanged between two passes. Raises RunFailure (BadSpec)."""
    if job.parallelism.strategy is Strategy.ZERO3 and job.tuner is not TunerName.FULL and not compares_with_base(job):
        start = "lora.from" if job.initial_adapter else f"lora.init {(job.lora or Lora()).init}"
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"parallelism.strategy zero3 with {start}: method {job.method} compares the model with the adapter before the training, to whose "
            "values this strategy does not go back in this version",
            f"set spec.parallelism.strategy to fsdp, zero2 or ddp, or remove spec.{start.split()[0]}",
        )


def add_adapter(
    model: PreTrainedModel,
    job: FineTuneJobSpec,
    initial: Path | None = None,
    tokens: Sequence[int] = (),
    *,
    make_config: MakeConfig,
) -> PeftModel:
    """Return `model` with a new adapter in float32, or with the one in the folder `initial`, on the parts that training.freeze leaves.

    `tokens`: ids of the tokens whose embeddings are trained too.

    Raises RunFailure: BadSpec for settings that PEFT refuses, BadModel for an adapter that does not fit.
    """
    from peft import get_peft_model

    from tunesmith_runtime.train.models.modalities import check_parts, parts_of
    from tunesmith_runtime.train.tuners.targets import linear_names, targets_of

    check_parts(parts_of(model), job.training)
    lora, frozen = job.lora or Lora(), job.training.frozen_parts
    config: Any = make_config(job, lora, targets_of(model, lora, job.export.merge, frozen))
    config.task_type = adapter_type(task_of(job.method), model.config.to_dict())
    if initial is not None:
        return load_initial(model, initial, config, frozen)
    name_parts(config, model, lora, tokens, frozen)
    try:
        return tied_if_wanted(with_float32_head(get_peft_model(model, config)), config)
    except TypeError as error:  # a kind of layer that this adapter cannot be added to
        raise _refused(error, f"set spec.tuner: {TunerName.LORA}") from error
    except ValueError as error:
        names = f"set spec.lora.targetModules to some of {', '.join(linear_names(model, frozen))}"
        raise _refused(error, "set spec.lora.dropout: 0" if lora.dropout else names) from error


def name_parts(
    config: Any, model: PreTrainedModel, lora: Lora, tokens: Sequence[int], frozen: Collection[ModelPart]
) -> None:
    """Write the modules and tokens that are trained beside the layers into the configuration of a LoRA adapter. Raises
    RunFailure (BadSpec)."""
    from tunesmith_runtime.train.tuners.saved_modules import saved_modules, tied_names
    from tunesmith_runtime.train.tuners.targets import Layers

    if lora.modules_to_save:
        config.modules_to_save = saved_modules(model, lora, frozen)
        config.ensure_weight_tying = not {*tied_names(Layers(model))}.isdisjoint(config.modules_to_save)
    if tokens:
        config.trainable_token_indices = [*tokens]


def tied_if_wanted(model: PeftModel, config: Any) -> PeftModel:
    """Return `model` after a check that embedding and output head share a weight if `config` requires it. Raises
    RunFailure (BadSpec)."""
    if getattr(config, "ensure_weight_tying", False):
        table, head = model.get_input_embeddings(), model.get_output_embeddings()
        if table.weight is not head.weight:
            sentence = "embedding and output head share their weight, and the adapter would train them apart"
            raise _refused(ValueError(sentence), "remove spec.lora.modulesToSave")
    return model


def load_initial(model: PreTrainedModel, folder: Path, config: PeftConfig, frozen: Collection[ModelPart]) -> PeftModel:
    """Return `model` with the adapter in `folder`, to be trained with the dropout of `config`. Raises RunFailure: BadModel, and BadSpec for
    an adapter with weights in `frozen` parts."""
    from tunesmith_runtime.modelcheck.loading import with_adapter
    from tunesmith_runtime.train.models.modalities import parts_of

    dropout = {name: value for name, value in config.to_dict().items() if name.endswith("dropout")}
    adapted = with_adapter(model, "default", folder, trained_with=dropout)
    parts = parts_of(model)
    for name, weight in model.named_parameters():
        if weight.requires_grad and (part := parts.of(name)) in frozen:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"lora.from: the adapter has weights in {name}, and the part {part} is frozen (training.freeze)",
                f"name other parts than {part} in spec.training.freeze, or remove spec.lora.from",
            )
    return adapted


def with_float32_head(model: PeftModel) -> PeftModel:
    """Return `model` with a trained head in float32, as the adapter is. PEFT leaves it in the number format of the base."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return model


def _refused(error: Exception, hint: str) -> RunFailure:
    return RunFailure(FailureClass.BAD_SPEC, f"the adapter does not fit the model: {error}", hint)


def check_adapter(
    model: PreTrainedModel, job: FineTuneJobSpec, tokens: Sequence[int] = (), *, make_config: MakeConfig
) -> None:
    """Refuse parts and layers that `model` does not have, and whatever else PEFT refuses. Adapts `model`."""
    from tunesmith_runtime.train.models.modalities import check_parts, parts_of
    from tunesmith_runtime.train.tuners.start import check_start
    from tunesmith_runtime.train.tuners.targets import check_targets

    lora, frozen = job.lora or Lora(), job.training.frozen_parts
    check_parts(parts_of(model), job.training)
    check_targets(model, lora, job.export.merge, frozen)
    check_start(model, lora, job.export.merge, frozen)
    plain = lora.model_copy(update={"init": LoraInit.DEFAULT})  # a start needs the numbers of the weights
    add_adapter(model, job.model_copy(update={"lora": plain}), tokens=tokens, make_config=make_config)


def record_trained(model: PeftModel, dtype: torch.dtype) -> Callable[[], bool]:
    """Record a checksum of each trained weight; the returned function tests whether one has changed.

    `dtype`, the number format of the base, is not used: weights of an adapter are stored in float32.
    """
    import torch

    from tunesmith_runtime.train.models.weight_change import stored_bits

    def bits() -> dict[str, int]:
        trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
        return {name: stored_bits(weight, torch.float32, 0.0) for name, weight in trained}

    before = bits()
    return lambda: bits() != before


def load_options(job: FineTuneJobSpec, compute: torch.dtype, device: str) -> Mapping[str, Any]:
    """Return the options of a frozen base: it is loaded in the number format of the computation. A base that the start
    of the adapter changes is in float32, as the removal of the start would otherwise leave rounding errors."""
    import torch

    return {"dtype": torch.float32 if (job.lora or Lora()).init.changes_base else compute}


def adapter_tuner(
    name: TunerName,
    make_config: MakeConfig,
    record_weights: Callable[[Any, torch.dtype], Callable[[], bool]] = record_trained,
    **fields: Any,
) -> Tuner:
    """Return the description of a tuner that adds such an adapter. `fields`: its differences from the other adapters."""
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
