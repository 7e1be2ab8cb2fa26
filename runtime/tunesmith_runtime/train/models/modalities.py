"""The parts of a multimodal model: what reads images and sounds, the language model, and the aligner between them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from tunesmith_api.failures import FailureClass
from tunesmith_api.training import PARTS, ModelPart, Training
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal.part_names import ALIGNERS, is_tower
from tunesmith_runtime.tasks import is_multimodal

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""Files that configure the preprocessing of images, videos and sounds."""


@dataclass(frozen=True)
class Parts:
    """The part of each module and weight of a model."""

    of_prefix: Mapping[str, ModelPart]
    """Names of modules and weights -> the part of all below them; a longer name takes precedence. What has no such prefix is a part of the
    language model. Empty for a model of text alone."""

    def of(self, name: str) -> ModelPart:
        """Return the part of a module or weight."""
        while name:
            if name in self.of_prefix:
                return self.of_prefix[name]
            name = name.rpartition(".")[0]
        return ModelPart.LANGUAGE


def parts_of(model: nn.Module) -> Parts:
    """Return the parts of a model. Raises RunFailure (BadSpec) as `other_parts`."""
    found: dict[str, ModelPart] = {}
    for name in other_parts(model):
        reads = is_tower(name.rpartition(".")[2])
        found[name] = ModelPart.VISION if reads else ModelPart.ALIGNER
        children = (child for child, _ in model.get_submodule(name).named_children()) if reads else ()
        found |= {f"{name}.{child}": ModelPart.ALIGNER for child in children if child in ALIGNERS}
    if not found:
        return Parts({})
    language = _language_modules(model)
    around = ((name, module) for name, module in model.named_modules() if id(module) not in language)
    prefixes = tuple(f"{name}." for name in found)
    for name, module in around:
        if not f"{name}.".startswith(prefixes):  # such as a learned separator of images
            own = (f"{name}.{weight}".lstrip(".") for weight, _ in module.named_parameters(recurse=False))
            found |= dict.fromkeys(own, ModelPart.ALIGNER)
    return Parts(found)


def check_parts(parts: Parts, training: Training) -> None:
    """Refuse parts of a model that does not have them. Raises RunFailure (BadSpec)."""
    named = [part for part in PARTS if part in (training.freeze or ())]
    if named and not parts.of_prefix:
        names = " and ".join(named)
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"training.freeze names {names}, and the base model does not read images: it has no such parts",
            f"remove {names} from spec.training.freeze, or name a multimodal model",
        )


def other_parts(model: nn.Module) -> list[str]:
    """Return the names of the outermost modules of a multimodal model that text rows do not train: all outside its decoder and its
    head, and the cross-attention layers of the decoder. Empty for other models.

    Raises RunFailure (BadSpec) for a class that has these modules inside its decoder.
    """
    if not isinstance(model, PreTrainedModel) or not is_multimodal(described(model)):
        return []
    decoder, trained = model.get_decoder(), _language_modules(model)
    found: list[str] = []

    def search(prefix: str, module: nn.Module) -> None:
        for name, child in module.named_children():
            if id(child) in trained:
                continue
            if any(id(each) in trained for each in child.modules()):
                search(f"{prefix}{name}.", child)
            elif any(True for _ in child.parameters()):
                found.append(prefix + name)

    search("", model)
    if not found:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"the vision modules of a {type(model).__name__} are part of its decoder, and this version cannot train the decoder alone",
            "name a model of another family",
        )
    return found + crossing_layers(model, decoder)


def _language_modules(model: Any) -> set[int]:
    """Return the ids of the modules of the decoder and its head."""
    parts = (model.get_decoder(), model.get_output_embeddings(), model.get_input_embeddings())
    return {id(each) for part in parts if part is not None for each in part.modules()}


def described(model: PreTrainedModel) -> dict[str, Any]:
    """Return the content of config.json of a model, which transformers completes only when it saves the model."""
    return {**model.config.to_dict(), "architectures": [type(model).__name__]}


def crossing_layers(model: PreTrainedModel, decoder: nn.Module) -> list[str]:
    """Return the names of the decoder's cross-attention layers, which the model skips without images."""
    numbers = getattr(model.config.get_text_config(), "cross_attention_layers", None) or ()
    path = next(name for name, module in model.named_modules() if module is decoder)
    return [f"{path}.layers.{number}" for number in numbers]


def copy_processor(base: Path, folder: Path) -> None:
    """Copy the files by which images, videos and sounds are read."""
    for name in PROCESSOR_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
