"""Every mode becomes RGB: greys of 16 bits are scaled, transparency is laid on white, inks become light."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import pytest
from PIL import Image, ImageCms

from tests.unit.runtime.media.files import (
    BLACK,
    GREEN,
    GREY,
    GREY_ALPHA,
    RED,
    RGB,
    WHITE,
    encoded,
    grey_png_of_16_bits,
    pixels_of,
    png,
)
from tunesmith_runtime.media import colours
from tunesmith_runtime.media.colours import Conversion
from tunesmith_runtime.media.picture_error import PictureError, PictureFault
from tunesmith_runtime.media.pictures import read_picture

VALUES = [0, 300, 30000, 65535]


def greys(*values: int) -> list[tuple[int, int, int]]:
    return [(value, value, value) for value in values]


def image_of(mode: str, values: list[Any]) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    return image


@pytest.mark.parametrize(
    "content",
    [
        grey_png_of_16_bits(VALUES),
        encoded(image_of("I;16", VALUES), "TIFF"),
        encoded(image_of("I;16B", VALUES), "TIFF"),
        encoded(image_of("I", VALUES), "TIFF"),
    ],
    ids=["png", "I;16", "I;16B", "I"],
)
def test_greys_of_16_bits_are_scaled(content: bytes) -> None:
    picture = read_picture(content)
    assert pixels_of(picture.pixels) == greys(0, 1, 117, 255)
    assert picture.conversions == {Conversion.SCALED_16_BIT}


def test_a_transparent_grey_of_16_bits_is_that_value_alone() -> None:
    picture = read_picture(grey_png_of_16_bits([300, 301, 65535], (b"tRNS", struct.pack(">H", 300))))
    assert pixels_of(picture.pixels) == greys(255, 1, 255)
    assert picture.conversions == {Conversion.SCALED_16_BIT, Conversion.FLATTENED}


@pytest.mark.parametrize(("mode", "values"), [("I", [0, 70000]), ("I", [-1, 5]), ("F", [0.0, 1.0])])
def test_numbers_of_unknown_range_are_refused(mode: str, values: list[Any]) -> None:
    with pytest.raises(PictureError) as found:
        read_picture(encoded(image_of(mode, values), "TIFF"))
    assert found.value.fault is PictureFault.UNKNOWN_RANGE


def test_colours_of_16_bits_are_counted_as_scaled() -> None:
    row = b"\0" + struct.pack(">6H", 0xABCD, 0xABCD, 0xABCD, 65535, 0, 0)
    picture = read_picture(png(2, 1, 16, RGB, row))
    assert (pixels_of(picture.pixels), picture.conversions) == ([(0xAB,) * 3, RED], {Conversion.SCALED_16_BIT})
    clear = read_picture(png(2, 1, 16, RGB, row, (b"tRNS", struct.pack(">3H", *[0xABCD] * 3))))
    assert pixels_of(clear.pixels) == [WHITE, RED]
    grey = read_picture(png(1, 1, 16, GREY_ALPHA, b"\0" + struct.pack(">2H", 0xABCD, 0)))
    assert pixels_of(grey.pixels) == [WHITE]


def test_a_bmp_of_16_bits_a_pixel_has_fewer_a_channel() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 16, 0, 4, 0, 0, 0, 0)
    content = b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + header + struct.pack("<HH", 0x7C00, 0)
    picture = read_picture(content)
    assert (pixels_of(picture.pixels), picture.conversions) == ([RED], frozenset())


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (image_of("RGBA", [(*RED, 0), (*RED, 255), (*BLACK, 128)]), {}, [WHITE, RED, (127, 127, 127)]),
        (image_of("LA", [(0, 0), (0, 255)]), {}, [WHITE, BLACK]),
        (image_of("RGB", [RED, GREEN]), {"transparency": RED}, [WHITE, GREEN]),
        (image_of("L", [7, 8]), {"transparency": 7}, [WHITE, (8, 8, 8)]),
        (image_of("1", [0, 255]), {"transparency": 0}, [WHITE, WHITE]),
        (image_of("RGB", [RED, GREEN]).quantize(2), {"transparency": b"\0\0"}, [WHITE, WHITE]),
    ],
    ids=["RGBA", "LA", "RGB", "L", "1", "P"],
)
def test_transparency_is_laid_on_white(image: Image.Image, options: dict[str, Any], expected: list[Any]) -> None:
    picture = read_picture(encoded(image, "PNG", **options))
    assert (pixels_of(picture.pixels), picture.conversions) == (expected, {Conversion.FLATTENED})


def test_a_transparent_grey_of_4_bits_is_laid_on_white() -> None:
    picture = read_picture(png(2, 1, 4, GREY, b"\0\x5f", (b"tRNS", struct.pack(">H", 5))))
    assert pixels_of(picture.pixels) == [WHITE, WHITE]
    assert picture.conversions == {Conversion.FLATTENED}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (image_of("RGBA", [(*RED, 255)]), [RED]),
        (image_of("LA", [(9, 255)]), greys(9)),
        (image_of("L", [0, 9]), greys(0, 9)),
        (image_of("1", [0, 255]), greys(0, 255)),
        (image_of("RGB", [RED, GREEN]).quantize(2), [RED, GREEN]),
    ],
    ids=["RGBA", "LA", "L", "1", "P"],
)
def test_a_mode_without_transparent_pixels_is_no_conversion(image: Image.Image, expected: list[Any]) -> None:
    picture = read_picture(encoded(image, "PNG"))
    assert (pixels_of(picture.pixels), picture.conversions) == (expected, frozenset())


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
@pytest.mark.parametrize("profile", [None, b"no profile"])
def test_inks_become_light(format_: str, profile: bytes | None) -> None:
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    options = {"icc_profile": profile} if profile else {}
    picture = read_picture(encoded(inks, format_, **options))
    red, green, blue = picture.pixels.getpixel((8, 8))  # type: ignore[misc]
    assert red > 250
    assert max(green, blue) < 5
    assert picture.conversions == {Conversion.FROM_CMYK}


def test_inks_are_read_by_the_profile_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def converted(image: Image.Image, source: BytesIO, target: Any, outputMode: str) -> Image.Image:
        given.append((image.mode, source.read(), outputMode))
        return Image.new(outputMode, image.size, GREEN)

    monkeypatch.setattr(colours.ImageCms, "profileToProfile", converted)
    content = encoded(Image.new("CMYK", (2, 2)), "TIFF", icc_profile=b"of the press")
    assert pixels_of(read_picture(content).pixels) == [GREEN] * 4
    assert given == [("CMYK", b"of the press", "RGB")]


def test_a_profile_for_light_is_not_applied_to_inks() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = read_picture(encoded(Image.new("CMYK", (2, 2), (0, 0, 0, 255)), "TIFF", icc_profile=profile))
    assert pixels_of(picture.pixels) == [BLACK] * 4
