"""Layers that LoRA can adapt, from only the names and shapes of a model, before its weights are read."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunesmith_api.base import listed
from tunesmith_api.failures import FailureClass
from tunesmith_api.training import PARTS, ModelPart, Training
from tunesmith_api.tuners import Lora
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.tasks import LANGUAGE, REWARD, Task, class_for
from tunesmith_runtime.train.models.modalities import Parts, parts_of

log = logging.getLogger(__name__)

LINEAR = (nn.Linear, Conv1D)
"""Conv1D is the linear layer of GPT-2, with its weight transposed."""
PAST_ADAPTERS = NonDynamicallyQuantizableLinear
"""The projection of torch's MultiheadAttention, which reads its weight past an adapter."""
ADAPTABLE = (*LINEAR, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)

STATE_SPACE = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"})
"""Model types whose kernels read the weights of `out_proj` and `conv1d` past an adapter; peft refuses these layers."""
STATE_SPACE_NAMES = frozenset({"out_proj", "conv1d"})

UNSET = "remove spec.lora.targetModules to adapt all linear layers"
FROZEN = Training().frozen_parts
"""Parts without adapters, unless a job chooses others."""


def skeleton(
    folder: Path, trust_remote_code: bool = False, task: Task = LANGUAGE, config: PretrainedConfig | None = None
) -> PreTrainedModel:
    """Return the model of `config`, by default config.json in `folder`, on torch's meta device: names and shapes without numbers."""
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    config = config or AutoConfig.from_pretrained(folder, local_files_only=True, **options)
    loader = getattr(transformers, class_for(task, config.to_dict()))
    if type(config) not in loader._model_mapping and not trust_remote_code:
        raise _refused(
            f"transformers has no {loader.__name__} of the model type {config.model_type}",
            "set spec.method to one that trains the base as it is, such as sft, or name another model",
        )
    with torch.device("meta"):
        model: PreTrainedModel = loader.from_config(config, **options)
    return model


def check_targets(model: nn.Module, lora: Lora, merge: bool = True, frozen: Collection[ModelPart] = FROZEN) -> None:
    """Refuse `lora.targetModules` unless every name can be adapted in the parts of `model` that are not `frozen`. The model may be on the
    meta device.

    peft ignores an unknown name if another name fits. An adapted layer that shares its weight with another layer can't be
    merged: the merge would change both.

    Raises RunFailure (BadSpec) with a hint that proposes valid names.
    """
    layers = Layers(model, frozenset(frozen))
    if lora.target_pattern is not None:
        _warn_of_rank(lora.rank, [layers.modules[name] for name in layers.matching(lora.target_pattern, merge)])
        return
    if lora.target_modules is None:
        _check_defaults(layers)
        return
    if not lora.target_modules:
        raise _refused("lora.targetModules is empty", UNSET)
    try:
        modules = modules_among(model, lora.target_modules)
    except ValueError as error:
        raise _refused(f"lora.targetModules: {error}", _proposal((), layers.names)) from error
    faults = {name: fault for name in modules if (fault := layers.fault(name))}
    shared = {name: fault for name in modules if merge and (fault := layers.shared_weight(name))}
    if faults or shared:
        names = [name for name in lora.target_modules if name not in faults and name not in shared]
        unmerged = "" if faults else "; or set spec.export.merge: false, which keeps the adapter apart"
        sentences = "; ".join([*faults.values(), *shared.values()])
        raise _refused(f"lora.targetModules: {sentences}", _proposal(names, layers.names) + unmerged)
    _warn_of_rank(lora.rank, [layer for name in modules for layer in layers.named(name).values()])


def _check_defaults(layers: Layers) -> None:
    """Warn of a part without a layer that is adapted by default. Raises RunFailure (BadSpec) if there is no such layer at all."""
    if not layers.defaults:
        raise _refused(
            f"{layers.scope} no linear layer that LoRA can adapt", "set spec.tuner: full, and remove spec.lora"
        )
    adapted = {layers.parts.of(name) for name in layers.defaults}
    for part in PARTS if layers.parts.of_prefix else ():
        if part not in layers.frozen | adapted:
            log.warning("%s has no linear layer that LoRA can adapt: it is not trained", part)


def default_targets(model: nn.Module) -> list[str] | str:
    """Return peft's keyword for all linear layers except the head, or their names if peft refuses some of them."""
    return linear_names(model) if _is_state_space(model) else "all-linear"


def targets_of(
    model: nn.Module, lora: Lora, merge: bool = True, frozen: Collection[ModelPart] = FROZEN
) -> list[str] | str:
    """Return what peft adapts in the parts of `model` that are not `frozen`: names, or its keyword for all linear layers."""
    layers = Layers(model, frozenset(frozen))
    if lora.target_pattern is not None:
        return layers.matching(lora.target_pattern, merge)
    if layers.parts.of_prefix:  # short names would match modules of frozen parts as well
        return layers.full_names(lora.target_modules) if lora.target_modules else layers.defaults
    return lora.target_modules or default_targets(model)


def modules_among(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Return the `names` that peft looks up among the modules. peft finds the layers of experts, which are one tensor,
    by their former names as modules. Raises ValueError if it needs several of these names together.
    """
    config = LoraConfig(target_modules=list(names))
    convert_peft_config_for_transformers(config, model, None)
    return [name for name in names if name in (config.target_modules or ())]


def linear_names(model: nn.Module, frozen: Collection[ModelPart] = FROZEN) -> list[str]:
    """Return the names of linear layers that `check_targets` accepts."""
    return Layers(model, frozenset(frozen)).names


@dataclass(frozen=True)
class Layers:
    """The modules of a model by the names under which peft finds them: a target is a module's full name or the end of it."""

    model: nn.Module
    frozen: frozenset[ModelPart] = FROZEN

    @cached_property
    def parts(self) -> Parts:
        """The part of each module."""
        return parts_of(self.model)

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """Full name -> module, without those of frozen parts, and without PAST_ADAPTERS."""
        return {
            name: module
            for name, module in self.model.named_modules()
            if name and not isinstance(module, PAST_ADAPTERS) and self.parts.of(name) not in self.frozen
        }

    @property
    def scope(self) -> str:
        """The beginning of a sentence about what these modules have."""
        if not self.parts.of_prefix:
            return "the model has"
        return f"the parts that training.freeze leaves, {listed([part for part in PARTS if part not in self.frozen], 'and')}, have"

    @cached_property
    def head(self) -> nn.Module | None:
        """The output head, called lm_head in most language models; the head of a model that has another task."""
        find = getattr(self.model, "get_output_embeddings", None)
        heads = (self.modules.get(name) for name in REWARD.heads)
        return (find() if find else None) or next((head for head in heads if head is not None), None)

    @cached_property
    def embedding(self) -> nn.Module | None:
        """The embedding of tokens."""
        find = getattr(self.model, "get_input_embeddings", None)
        return find() if find else None

    def name_of(self, module: nn.Module | None) -> str | None:
        """Return the full name of `module`; None if the model has no such module."""
        return next((name for name, each in self.modules.items() if each is module), None)

    @cached_property
    def names(self) -> list[str]:
        """The short names of linear layers, each of which is accepted as a target."""
        linear = {name.rsplit(".", 1)[-1] for name, module in self.modules.items() if isinstance(module, LINEAR)}
        return sorted(name for name in linear if self.accepts(name))

    @cached_property
    def defaults(self) -> list[str]:
        """The full names of the linear layers that are adapted by default."""
        linear = [name for name, module in self.modules.items() if isinstance(module, LINEAR)]
        return [name for name in linear if name.rpartition(".")[2] in self.names or self._is_beside_language(name)]

    def _is_beside_language(self, name: str) -> bool:
        """Return whether a linear layer of another part than the language model can be adapted, whatever has the same short name."""
        is_language = self.parts.of(name) is ModelPart.LANGUAGE
        return not (is_language or self.fault(name) or self.shared_weight(name))

    def matching(self, pattern: str, merge: bool = True) -> list[str]:
        """Return the full names of linear layers that match `lora.targetPattern` and can be adapted, and merged if `merge`
        is set.

        Raises RunFailure (BadSpec), with the names of the linear layers, if no name matches.
        """
        try:
            matches = re.compile(pattern).fullmatch
        except re.error as error:
            sentence = f"lora.targetPattern {pattern!r} is no regular expression: {error}"
            raise _refused(sentence, "correct spec.lora.targetPattern") from error
        linear = [name for name, module in self.modules.items() if isinstance(module, LINEAR)]
        adaptable = [name for name in linear if not (self.fault(name) or (merge and self.shared_weight(name)))]
        if found := [name for name in adaptable if matches(name)]:
            return found
        first = f"whole names such as {adaptable[0]}, which end with" if adaptable else "one of"
        raise _refused(
            f"lora.targetPattern {pattern!r} matches the whole name of no linear layer that can be adapted",
            f"correct spec.lora.targetPattern: it matches {first} {', '.join(self.names)}; or remove it to adapt all linear layers",
        )

    def accepts(self, name: str) -> bool:
        """Return whether `name` can be adapted and merged on its own."""
        try:
            modules = modules_among(self.model, [name])
        except ValueError:
            return False
        return not any(self.fault(each) or self.shared_weight(each) for each in modules)

    def named(self, target: str) -> dict[str, nn.Module]:
        """Return the modules that `target` names."""
        ending = f".{target}"
        return {name: each for name, each in self.modules.items() if name == target or name.endswith(ending)}

    def full_names(self, targets: Iterable[str]) -> list[str]:
        """Return the full names of the modules that `targets` name, each once."""
        return list(dict.fromkeys(name for target in targets for name in self.named(target)))

    def fault(self, target: str) -> str | None:
        """Return the reason why `target` cannot be adapted; None if it can."""
        modules = self.named(target)
        if not modules:
            return self._no_module(target)
        if any(module is self.head for module in modules.values()):
            return f"{target!r} names the output head, which is not adapted"
        if _is_state_space(self.model) and target in STATE_SPACE_NAMES:
            return f"{target!r} cannot be adapted in a model with state space layers"
        other = next((module for module in modules.values() if not isinstance(module, ADAPTABLE)), None)
        return None if other is None else f"{target!r} names a {type(other).__name__}, which is not a linear layer"

    def _no_module(self, target: str) -> str:
        ending = f".{target}"
        named = (name for name, _ in self.model.named_modules() if name == target or name.endswith(ending))
        if found := {self.parts.of(name) for name in named}:
            return f"{target!r} names only modules of frozen parts (training.freeze): {listed(sorted(found), 'and')}"
        return f"no module of the model is named {target!r}"

    def shared_weight(self, target: str) -> str | None:
        """Return the reason why a merge of `target` would change a module that shares its weight; None if there is none."""
        for name, module in self.named(target).items():
            others = [other for other in self._owners.get(id(_weight(module)), ()) if other != name]
            if others:
                return f"{target!r} shares its weight with {others[0]}, so that a merge would change both"
        return None

    @cached_property
    def _owners(self) -> dict[int, list[str]]:
        owners: dict[int, list[str]] = {}
        for name, module in self.modules.items():
            if (weight := _weight(module)) is not None:
                owners.setdefault(id(weight), []).append(name)
        return owners


def _weight(module: nn.Module) -> torch.Tensor | None:
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, torch.Tensor) else None


def _is_state_space(model: nn.Module) -> bool:
    return getattr(getattr(model, "config", None), "model_type", None) in STATE_SPACE


def _proposal(names: Iterable[str], known: list[str]) -> str:
    valid, choose = ", ".join(names), f"choose from {', '.join(known)}" if known else UNSET
    if valid:
        return f"write spec.lora.targetModules: [{valid}], or {choose}"
    return f"{choose}, or {UNSET}" if known else UNSET


def _warn_of_rank(rank: int, layers: Iterable[nn.Module]) -> None:
    weights = [weight for layer in layers if (weight := _weight(layer)) is not None]
    smallest = min((size for weight in weights for size in weight.shape[:2]), default=rank)
    if rank > smallest:
        log.warning("lora.rank %d is more than the %d dimensions of the smallest adapted layer", rank, smallest)


def _refused(message: str, hint: str) -> RunFailure:
    return RunFailure(FailureClass.BAD_SPEC, message, hint)
