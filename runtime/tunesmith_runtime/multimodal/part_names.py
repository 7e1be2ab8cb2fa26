"""Names that classes of transformers give to the parts of a multimodal model. Imports no framework."""

from __future__ import annotations

import re

from tunesmith_api.training import ModelPart

TOWER = re.compile(r"visual|\w*vision_(model|neck)|\w+_tower|\w+_encoder|vqmodel")
"""Modules that read images, videos and sounds. What else is beside the decoder aligns their features with it."""
ALIGNERS = frozenset({"merger", "merger_list", "deepstack_merger_list", "proj", "proj1", "proj2"})
"""Aligners that are children of a tower: of Qwen-VL and GLM-V, and of the audio towers of Qwen-Omni."""
BESIDE_DECODER = re.compile(
    r"(^|\.)(visual|visual_\w+|(high_res_)?vision_\w+|audio_\w+|image_tower|vqmodel|qformer|connector|aligner|merger|"
    r"(mm_|multi_modal_)?projector|resampler_model|image_to_text_projection|language_projection|embed_vision|embed_audio)\.|"
    r"(^|\.)image_newline$"
)
"""A weight of a file that is not of the language model."""


def is_tower(name: str) -> bool:
    """Return whether a module of this name reads images, videos or sounds."""
    return TOWER.fullmatch(name) is not None


def part_of_weight(name: str) -> ModelPart:
    """Return the part of a weight by its name in the files of a model, where the modules may have another prefix than in the class."""
    if not BESIDE_DECODER.search(name):
        return ModelPart.LANGUAGE
    modules = name.split(".")
    tower = next((index for index, module in enumerate(modules) if is_tower(module)), None)
    return ModelPart.ALIGNER if tower is None or modules[tower + 1] in ALIGNERS else ModelPart.VISION
