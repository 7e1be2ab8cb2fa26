"""Boxes of rows in the text that the model under test writes for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tunesmith_runtime.answers.coordinates import Family, Pixels, Size, family_of
from tunesmith_runtime.data.records import Box
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.multimodal.processor import MediaProcessor


@dataclass(frozen=True)
class BoxText:
    """Writes boxes as the model in a folder was trained to write them."""

    model: Path
    trust_remote_code: bool = False

    def write(self, box: Box, sizes: Sequence[Size]) -> str:
        """Return the text of a box in one of the pictures of these sizes.

        Raises RowError for a box outside of its picture; RunFailure (BadSpec) for models whose coordinates are not known.
        """
        if box.image >= len(sizes):
            raise RowError(f"has a box in image {box.image}, and {len(sizes)} images", "count images from 0")
        size = sizes[box.image]
        return self._family.write(box, size, self._resized(size))

    def _resized(self, size: Size) -> Size:
        """The size to which the model's processor scales a picture, where coordinates are pixels of that."""
        if not isinstance(self._family.convention, Pixels):
            return size
        return self._processor.written(size).resized or size

    @cached_property
    def _family(self) -> Family:
        return family_of(json.loads((self.model / "config.json").read_text()).get("model_type", ""))

    @cached_property
    def _processor(self) -> MediaProcessor:
        return MediaProcessor.load(self.model, self.trust_remote_code)
