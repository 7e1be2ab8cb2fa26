"""Coordinates of boxes: how each family of models writes a box of a picture. Pure functions.

The encoder of rows and the scorer of answers share this module: an answer equal to the encoded row has an IoU of 1 at every
size of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.records import Box
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure

SLACK = 1e-6
"""Share of the picture by which a box may exceed it, as shares are rounded."""


@dataclass(frozen=True)
class Size:
    """Width and height of a picture in pixels, after its EXIF orientation is applied."""

    width: int
    height: int


@dataclass(frozen=True)
class Pixels:
    """Coordinates are pixels of the resized picture, which the processor gives to the model."""

    def span(self, resized: Size) -> Size:
        """Return the coordinates of the lower right corner of the picture."""
        return resized


@dataclass(frozen=True)
class Thousandths:
    """Coordinates are shares of the picture times `most`, whatever its size."""

    most: int = 1000

    def span(self, _: Size) -> Size:
        """Return the coordinates of the lower right corner of the picture."""
        return Size(self.most, self.most)


Convention = Pixels | Thousandths


@dataclass(frozen=True)
class Family:
    """How a family of models writes boxes."""

    convention: Convention
    form: str = "[{}, {}, {}, {}]"
    """The text of a box, with braces for its four coordinates."""

    def write(self, box: Box, source: Size, resized: Size) -> str:
        """Return the text of a box of a picture of the size `source`. Raises RowError as `encode`, and for points."""
        if len(box.coordinates) != 4:
            raise RowError(f"{list(box.coordinates)} is a point; expected a box [x1, y1, x2, y2]")
        return self.form.format(*encode(box, source, self.convention.span(resized)))


LISTED = Family(Thousandths(), "<box>[[{}, {}, {}, {}]]</box>")
FAMILIES: Mapping[str, Family] = {
    # https://arxiv.org/abs/2409.12191, https://github.com/QwenLM/Qwen3-VL/issues/866
    "qwen2_vl": Family(Thousandths(), "<|box_start|>({},{}),({},{})<|box_end|>"),
    # https://github.com/QwenLM/Qwen3-VL/issues/676 and 1161
    "qwen2_5_vl": Family(Pixels()),
    # https://github.com/QwenLM/Qwen3-VL/issues/1486 and 1741
    "qwen3_vl": Family(Thousandths()),
    "qwen3_vl_moe": Family(Thousandths()),
    # https://internvl.readthedocs.io/en/latest/get_started/chat_data_format.html
    "internvl": LISTED,
    "internvl_chat": LISTED,
    # https://huggingface.co/zai-org/GLM-4.5V, https://github.com/zai-org/GLM-V/issues/114 and 161
    "glm4v": Family(Thousandths(), "<|begin_of_box|>[[{},{},{},{}]]<|end_of_box|>"),
    "glm4v_moe": Family(Thousandths(), "<|begin_of_box|>[[{},{},{},{}]]<|end_of_box|>"),
    # https://github.com/deepseek-ai/DeepSeek-VL2/issues/100
    "deepseek_vl_v2": Family(Thousandths(999), "<|det|>[[{}, {}, {}, {}]]<|/det|>"),
}
"""model_type of config.json -> how it writes boxes."""


def family_of(model_type: str) -> Family:
    """Return how models of a type write boxes. Raises RunFailure (BadSpec) for a type whose convention is not known."""
    family = FAMILIES.get(model_type)
    if family is None:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"model: config.json has the model_type {model_type!r:.80}, whose coordinates of boxes are not known; known are "
            + ", ".join(sorted(FAMILIES)),
            "use a model of these types, or write the coordinates as the model expects them into the text of the rows",
        )
    return family


def encode(box: Box, source: Size, span: Size) -> tuple[int, ...]:
    """Return the coordinates of a box or a point in a picture of the size `source`, scaled to `span` and rounded.

    Raises RowError for a box that is not within the picture, or whose second corner is left of or above its first.
    """
    shares = _shares(box, source)
    if any(not -SLACK <= share <= 1 + SLACK for share in shares):
        unit = "shares" if box.is_relative else "pixels"
        raise RowError(
            f"box {list(box.coordinates)} ({unit}) is not within the picture of {source.width} x {source.height} pixels",
            "correct the box, or the size of the picture that it was drawn on",
        )
    if len(shares) == 4 and (shares[0] > shares[2] or shares[1] > shares[3]):
        raise RowError(
            f"box {list(box.coordinates)} has a second corner left of or above its first",
            "write a box as [x1, y1, x2, y2], the upper left corner first",
        )
    return tuple(
        min(max(round(share * extent), 0), extent) for share, extent in zip(shares, _extents(span, shares), strict=True)
    )


def decode(coordinates: Sequence[float], source: Size, span: Size) -> tuple[float, ...]:
    """Return coordinates that a model wrote as pixels of the picture of the size `source`."""
    pairs = zip(coordinates, _extents(span, coordinates), _extents(source, coordinates), strict=True)
    return tuple(value / extent * pixels for value, extent, pixels in pairs)


def _shares(box: Box, source: Size) -> list[float]:
    """Return coordinates as shares of width and height."""
    if box.is_relative:
        return list(box.coordinates)
    extents = _extents(source, box.coordinates)
    return [value / extent for value, extent in zip(box.coordinates, extents, strict=True)]


def _extents(size: Size, coordinates: Sequence[float]) -> list[int]:
    """Return width, height, width … for coordinates x, y, x …"""
    return [size.height if index % 2 else size.width for index in range(len(coordinates))]
