"""The processor of a model: what it writes for an image, and the tensors that the model reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.answers.coordinates import Size
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal.pixels import FILES, OWN_BOUNDS, PixelBudget, largest_budget, write_size
from tunesmith_runtime.multimodal.slots import Slots
from tunesmith_runtime.tasks import is_multimodal

if TYPE_CHECKING:
    from torch import Tensor

OF_TEXT = frozenset({"input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids", "text_replacement_offsets"})
"""Outputs of a processor that follow from the text."""
TYPES = "mm_token_type_ids"
"""Input of models with the kind of each token, of the shape of the tokens."""
BLANK = "white"
SIZES = 256
"""Sizes of images whose text is kept. The text of a large image has up to 200 KB, and clients of a server choose the sizes."""


PACKAGES = frozenset({"torchvision"})
"""Optional packages that processors import. transformers finds out once in a process whether they are there."""


def packages_of(folder: Path) -> frozenset[str]:
    """Return the optional packages that the processor of the model in `folder` imports; empty without a processor."""
    return PACKAGES if has_processor(folder) else frozenset()


def has_processor(folder: Path) -> bool:
    """Return whether the model in `folder` has a processor of images."""
    return any((folder / name).is_file() for name in FILES)


def reads_images(folder: Path) -> bool:
    """Return whether the model in `folder` is multimodal and has a processor. Imports transformers for those that have one."""
    return has_processor(folder) and is_multimodal(json.loads((folder / "config.json").read_text()))


@dataclass(frozen=True)
class Written:
    """What the processor makes of an image of a size."""

    text: str
    """What it writes in the place of the template's token."""
    resized: Size | None
    """The pixels that the model sees, where the processor resizes to whole patches; None where it does not tell."""


@dataclass(frozen=True)
class MediaProcessor:
    """The processor of a model of transformers."""

    processor: Any
    """A transformers.ProcessorMixin."""
    model_type: str
    budget: PixelBudget = OWN_BOUNDS
    """The pixels that the processor was given in place of its own."""

    @classmethod
    def load(cls, folder: Path, trust_remote_code: bool = False, budget: PixelBudget = OWN_BOUNDS) -> MediaProcessor:
        """Load the processor in `folder`, with a budget of pixels. Raises RunFailure: BadModel, and BadSpec for a budget that it cannot
        take."""
        from transformers import AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(
                folder, trust_remote_code=trust_remote_code, local_files_only=True
            )
        except Exception as error:  # processors raise errors of any type
            raise _refused(f"the processor of its images cannot be loaded: {error}") from error
        if not hasattr(processor, "image_processor") or not getattr(processor, "image_token", None):
            raise _refused(f"{type(processor).__name__} does not name the token of an image")
        budget.set_in(processor.image_processor)
        return cls(processor, json.loads((folder / "config.json").read_text()).get("model_type", ""), budget)

    @cached_property
    def slots(self) -> Slots:
        """How the chat template writes images."""
        names = ("image", "video", "audio", "boi", "eoi", "vision_start", "vision_end")
        tokenizer = self.processor.tokenizer
        found = (getattr(owner, f"{name}_token", None) for owner in (self.processor, tokenizer) for name in names)
        typed = dict.fromkeys(token for token in found if isinstance(token, str))
        return Slots(self.processor.image_token, tuple(sorted(typed, key=len, reverse=True)))

    @cached_property
    def slot_ids(self) -> frozenset[int]:
        """The tokens whose embeddings the model replaces by features."""
        ids = (*self.processor.image_token_ids, *self.processor.video_token_ids, *self.processor.audio_token_ids)
        return frozenset(each for each in ids if each is not None)

    def written(self, size: Size) -> Written:
        """Return what the processor makes of an image, which depends on its size alone. Raises RowError where it refuses the size."""
        return self._written(size)

    @cached_property
    def _written(self) -> Callable[[Size], Written]:
        return lru_cache(SIZES)(self._measured)

    def largest_budget(self, sizes: Sequence[Size], tokens: int) -> int | None:
        """Return the largest maxPixels with which images of these sizes take at most so many tokens; None where there is none."""
        return largest_budget(self.processor.image_processor, sizes, tokens)

    def write_budget(self, folder: Path) -> None:
        """Write the budget of pixels, if there is one, into the copy of the processor in `folder`."""
        if self.budget:
            write_size(self.processor.image_processor, folder)

    def features(self, rows: Sequence[Sequence[Image.Image]]) -> dict[str, Tensor]:
        """Return the inputs of the model beside its tokens for the images of each row, in the order of their slots; empty without images."""
        if not any(rows):
            return {}
        token = self.processor.image_token
        found = self.processor(
            text=[token * len(images) for images in rows],
            images=[list(images) for images in rows],
            return_tensors="pt",
            padding=True,
        )
        return {name: value for name, value in found.items() if name not in OF_TEXT}

    def probe(self) -> dict[str, Tensor]:
        """Return the inputs of the model for a fixed image, on which models are compared."""
        image = Image.linear_gradient("L").convert("RGB")
        found = self.processor(text=[self.processor.image_token], images=[[image]], return_tensors="pt")
        ids: Tensor = found["input_ids"]
        types = self.token_types(ids)
        return {"input_ids": ids, **self.features([[image]]), **({} if types is None else {TYPES: types})}

    def token_types(self, ids: Tensor) -> Tensor | None:
        """Return for each token whether it is text, 0, or of a kind of media, for models that read it; None for others."""
        if not self._reads_types:
            return None
        rows = ids.reshape(-1, ids.shape[-1]).tolist()
        return ids.new_tensor(self.processor.create_mm_token_type_ids(rows)).reshape(ids.shape)

    @cached_property
    def _reads_types(self) -> bool:
        return TYPES in self.processor.model_input_names

    def _measured(self, size: Size) -> Written:
        image = Image.new("RGB", (size.width, size.height), BLANK)
        try:
            found = self.processor(
                text=[self.processor.image_token],
                images=[[image]],
                return_text_replacement_offsets=True,
                return_tensors="pt",
            )
        except Exception as error:  # processors raise errors of any type
            raise RowError(
                f"has an image of {size.width} x {size.height} pixels, which the model's processor refuses: {error}",
                "crop the image, or scale it",
            ) from error
        (replaced,) = found["text_replacement_offsets"][0]
        return Written(replaced["replacement"], self._resized(found))

    def _resized(self, found: Any) -> Size | None:
        if (grid := found.get("image_grid_thw")) is None:
            return None
        _, height, width = grid[0].tolist()
        patch = self.processor.image_processor.patch_size
        return Size(width * patch, height * patch)


def _refused(sentence: str) -> RunFailure:
    return RunFailure(
        FailureClass.BAD_MODEL, f"the base model: {sentence}", "name a model that transformers reads images with"
    )
