"""The parts of a multimodal model beside its decoder, such as a vision tower, which text rows do not train."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.tasks import is_multimodal

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""Files that configure the preprocessing of images, videos and sounds."""


def other_parts(model: nn.Module) -> list[str]:
    """Return the names of the outermost modules of a multimodal model that text rows do not train: all outside its decoder and its
    head, and the cross-attention layers of the decoder. Empty for other models.

    Raises RunFailure (BadSpec) for a class that has these modules inside its decoder.
    """
    if not isinstance(model, PreTrainedModel) or not is_multimodal(described(model)):
        return []
    decoder = model.get_decoder()
    kept = [part for part in (decoder, model.get_output_embeddings(), model.get_input_embeddings()) if part is not None]
    trained = {id(each) for part in kept for each in part.modules()}
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


def described(model: PreTrainedModel) -> dict[str, Any]:
    """Return the content of config.json of a model, which transformers completes only when it saves the model."""
    return {**model.config.to_dict(), "architectures": [type(model).__name__]}


def crossing_layers(model: PreTrainedModel, decoder: nn.Module) -> list[str]:
    """Return the names of the decoder's cross-attention layers, which the model skips without images."""
    numbers = getattr(model.config.get_text_config(), "cross_attention_layers", None) or ()
    path = next(name for name, module in model.named_modules() if module is decoder)
    return [f"{path}.layers.{number}" for number in numbers]


def freeze_other_parts(model: PreTrainedModel) -> None:
    """Freeze the parts that text rows do not train."""
    for name in other_parts(model):
        model.get_submodule(name).requires_grad_(False)


def copy_processor(base: Path, folder: Path) -> None:
    """Copy the files by which images, videos and sounds are read."""
    for name in PROCESSOR_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
