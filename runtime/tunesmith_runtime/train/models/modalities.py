"""The parts of a multimodal model: those that write text, and those that see or hear, which rows of text do not train."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""Files of a model that say how images, videos and sounds become its inputs."""


def other_parts(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules of a model that are beside its decoder and its head, such as a vision tower and what aligns
    it with the text: as few as contain them all. Empty for a language model."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    written = {
        id(each) for part in (model.get_decoder(), head, embedding) if part is not None for each in part.modules()
    }
    found: list[str] = []

    def search(prefix: str, module: nn.Module) -> None:
        for name, child in module.named_children():
            if id(child) in written:
                continue
            if any(id(each) in written for each in child.modules()):
                search(f"{prefix}{name}.", child)
            elif any(True for _ in child.parameters()):
                found.append(prefix + name)

    search("", model)
    return found


def freeze_other_parts(model: PreTrainedModel) -> None:
    """Freeze what rows of text do not train."""
    for name in other_parts(model):
        model.get_submodule(name).requires_grad_(False)


def pattern_of(parts: list[str]) -> str | None:
    """Return the regular expression that matches the whole names of the modules in `parts`; None for no parts."""
    return rf"({'|'.join(map(re.escape, parts))})(\..*)?" if parts else None


def copy_processor(base: Path, folder: Path) -> None:
    """Copy the files by which images, videos and sounds are read."""
    for name in PROCESSOR_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
