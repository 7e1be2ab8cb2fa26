"""The pixels of an image that a model sees: how classes of image processors take training.maxPixels and minPixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.training import Training
from tunesmith_runtime.answers.coordinates import Size
from tunesmith_runtime.errors import RunFailure

FILES = ("processor_config.json", "preprocessor_config.json")
"""Files that configure the processing of images; a model has one of them."""
NESTED = "image_processor"
"""Key of processor_config.json that has the settings of images."""
BY_PIXELS = frozenset(
    {"Qwen2VL", "CohereCompass", "Ernie4_5_VLMoe", "Ernie4_5_VL_Moe", "HunYuanVL", "MiniMaxM3VL", "PaddleOCRVL", "VideoLlama3"}
)  # fmt: skip
"""Classes, without the ending ImageProcessor, whose size is the least and the most pixels of an image."""
BY_PIXELS_OF_FRAMES = frozenset({"Glm4v", "Glm46V", "Glmga", "Cosmos3Edge"})
"""Classes whose size is that of as many frames as a temporal patch has: an image is repeated for each."""
TILED = ("crop_to_patches", "image_grid_pinpoints", "max_image_tiles", "do_image_splitting", "do_pan_and_scan")
"""Settings of classes that divide an image into tiles of one size."""
LEGACY = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
"""Keys of older files -> their names in `size`."""


@dataclass(frozen=True)
class PixelBudget:
    """The least and the most pixels of an image; None for the bounds of the processor."""

    least: int | None = None
    most: int | None = None

    @classmethod
    def of(cls, training: Training) -> PixelBudget:
        """Return the budget of a job."""
        return cls(training.min_pixels, training.max_pixels)

    def __bool__(self) -> bool:
        return self.least is not None or self.most is not None

    def set_in(self, images: Any) -> None:
        """Give the budget to an image processor of transformers.

        Raises RunFailure (BadSpec) for a class that has no budget, and for one that it cannot keep.
        """
        if not self:
            return
        frames, name = frames_of(images), f"the base model's {type(images).__name__}"
        if frames is None:
            raise refused_budget(f"{name} {_sizing(images)}")
        own, smallest = images.size, pixels_of_token(images)
        least = own["shortest_edge"] // frames if self.least is None else self.least
        most = own["longest_edge"] // frames if self.most is None else self.most
        if most < smallest:
            raise refused_budget(
                f"maxPixels is {most}, and every image has {smallest} pixels or more for {name}",
                f"set spec.training.maxPixels to {smallest} or more",
            )
        if most < least and self.least is None:
            raise refused_budget(
                f"maxPixels {most} is less than the minPixels of {name}, {least}",
                f"set spec.training.minPixels to {most} or less",
            )
        if most < least:
            raise refused_budget(
                f"minPixels {least} is more than the maxPixels of {name}, {most}",
                f"set spec.training.maxPixels to {least} or more",
            )
        images.size = type(own)(shortest_edge=least * frames, longest_edge=most * frames)


OWN_BOUNDS = PixelBudget()
"""The budget of a processor as it is."""


def frames_of(images: Any) -> int | None:
    """Return how often an image processor counts the pixels of an image; None for a class without a budget of pixels."""
    name = type(images).__name__.partition("ImageProcessor")[0]
    if name in BY_PIXELS:
        return 1
    return int(images.temporal_patch_size) if name in BY_PIXELS_OF_FRAMES else None


def pixels_of_token(images: Any) -> int:
    """Return the pixels that a token of the model stands for."""
    return int(images.patch_size * images.merge_size) ** 2


def largest_budget(images: Any, sizes: Sequence[Size], tokens: int) -> int | None:
    """Return the largest maxPixels with which images of these sizes take at most so many tokens; None where there is none.

    `images`: an image processor, whose minPixels are kept.
    """
    frames = frames_of(images)
    if frames is None:
        return None
    least, factor = images.size["shortest_edge"], images.merge_size**2

    def fits(most: int) -> bool:
        edges = {"shortest_edge": least, "longest_edge": most * frames}
        own = {"size": edges, "min_pixels": least, "max_pixels": most * frames}
        return (
            sum(images.get_number_of_image_patches(each.height, each.width, own) // factor for each in sizes) <= tokens
        )

    low = max(-(-least // frames), pixels_of_token(images))
    high = images.size["longest_edge"] // frames
    if not fits(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def write_size(images: Any, folder: Path) -> None:
    """Write the size of an image processor into the files of a model, whose other settings stay as they are."""
    for path in (folder / name for name in FILES if (folder / name).is_file()):
        config = json.loads(path.read_text())
        settings = config.get(NESTED) or config
        settings["size"] = size = dict(images.size)
        settings |= {key: size[edge] for key, edge in LEGACY.items() if key in settings}
        path.write_text(json.dumps(config, indent=2) + "\n")


def _sizing(images: Any) -> str:
    """Return how an image processor without a budget sizes images."""
    size = getattr(images, "crop_size", None) if getattr(images, "do_center_crop", None) else images.size
    if not size or "height" not in size or "width" not in size:
        return "has no budget of pixels"
    tiles = "tiles of " if any(getattr(images, name, None) for name in TILED) else ""
    return f"resizes every image to {tiles}{size['width']} x {size['height']} pixels"


def refused_budget(sentence: str, hint: str = "remove spec.training.maxPixels and minPixels") -> RunFailure:
    """Return the failure of a job whose budget of pixels does not go with its model."""
    return RunFailure(FailureClass.BAD_SPEC, f"training.maxPixels, minPixels: {sentence}", hint)
