"""The RGB pixels of a picture of any mode of Pillow, and what was converted for them."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from io import BytesIO

from PIL import Image, ImageCms

from tunesmith_runtime.media.picture_error import PictureError, PictureFault


class Conversion(StrEnum):
    """What changes the pixels of a file before a model receives them."""

    TURNED = "Turned"
    FLATTENED = "Flattened"
    SCALED_16_BIT = "Scaled16Bit"
    FROM_CMYK = "FromCMYK"
    FIRST_FRAME = "FirstFrame"


Converted = tuple[Image.Image, frozenset[Conversion]]

_TOP_16_BIT = 65535
_TOP_OF_RAW_MODE = {"I;12": 4095}
_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""Raw modes of PNG with fewer than 8 bits, and the distance of their greys after decoding."""


def in_rgb(image: Image.Image, raw_mode: str) -> Converted:
    """A copy in RGB without metadata. `image` is loaded, and `raw_mode` is that of its file.

    Raises PictureError for numbers whose range is unknown, and errors of Pillow for modes that have no conversion.
    """
    if image.mode == "F":
        raise _unknown_range("has floating-point pixels, whose range is unknown")
    if image.mode.startswith("I"):
        pixels, conversions = _from_16_bit(image, _TOP_OF_RAW_MODE.get(raw_mode, _TOP_16_BIT))
    elif image.mode == "CMYK":
        pixels, conversions = _from_cmyk(image), frozenset({Conversion.FROM_CMYK})
    elif image.has_transparency_data:
        pixels, conversions = _on_white(_with_transparency_of_8_bits(image, raw_mode).convert("RGBA"))
    else:
        pixels, conversions = image.convert("RGB"), frozenset()
    # a reader further on would turn the pixels again, or mask them, by the metadata
    pixels.info = {}
    return pixels, conversions | ({Conversion.SCALED_16_BIT} if _is_16_bit(raw_mode) else frozenset())


def _is_16_bit(raw_mode: str) -> bool:
    """Whether a channel has 16 bits in the file. BGR;16 is BMP's, with 16 bits for all three."""
    return ";16" in raw_mode and not raw_mode.startswith("BGR")


def _on_white(image: Image.Image, alpha: Image.Image | None = None) -> Converted:
    """An image with its alpha channel, or `alpha`, laid on white."""
    alpha = alpha or image.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return image.convert("RGB"), frozenset()
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white, frozenset({Conversion.FLATTENED})


def _with_transparency_of_8_bits(image: Image.Image, raw_mode: str) -> Image.Image:
    """The image, whose transparent colour has as many bits as its pixels: Pillow keeps that of the file."""
    colour = image.info.get("transparency")
    if isinstance(colour, int) and raw_mode in _GREY_STEPS:
        image.info["transparency"] = colour * _GREY_STEPS[raw_mode]
    elif isinstance(colour, tuple) and _is_16_bit(raw_mode):
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    return image


def _from_16_bit(image: Image.Image, top: int) -> Converted:
    """Greys from 0 to `top` as three equal channels from 0 to 255, rounded to the nearest."""
    transparent = image.info.pop("transparency", None)
    whole = image.convert("I")
    low, high = whole.getextrema()
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if low < 0 or high > top:
        raise _unknown_range(f"has grey values from {low:.0f} to {high:.0f}; expected 0 to {top}")
    grey = whole.point(_shades(top), "L")
    if transparent is None:
        return grey.convert("RGB"), frozenset({Conversion.SCALED_16_BIT})
    mask = [0 if value == transparent else 255 for value in range(_TOP_16_BIT + 1)]
    flat, conversions = _on_white(grey.convert("RGB"), whole.point(mask, "L"))
    return flat, conversions | {Conversion.SCALED_16_BIT}


@cache
def _shades(top: int) -> tuple[int, ...]:
    """The grey of 8 bits for each value of 16."""
    return tuple((min(value, top) * 255 * 2 + top) // (2 * top) for value in range(_TOP_16_BIT + 1))


def _from_cmyk(image: Image.Image) -> Image.Image:
    """Colours by the embedded profile; without a usable profile, by Pillow's formula."""
    if profile := image.info.get("icc_profile"):
        try:
            srgb = ImageCms.createProfile("sRGB")
            found = ImageCms.profileToProfile(image, BytesIO(profile), srgb, outputMode="RGB")
        except ImageCms.PyCMSError:
            found = None
        if found is not None:
            return found
    return image.convert("RGB")


def _unknown_range(sentence: str) -> PictureError:
    return PictureError(PictureFault.UNKNOWN_RANGE, sentence, "save the picture with 8 or 16 bits a channel")
