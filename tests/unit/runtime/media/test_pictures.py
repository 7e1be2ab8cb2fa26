"""The pixels of a picture are upright RGB whatever its file holds, and a picture that cannot be read is refused."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageFile, ImageOps

from tests.unit.runtime.media.files import (
    BLUE,
    GREEN,
    RED,
    RGB,
    WHITE,
    corner,
    encoded,
    png,
    tiff,
    with_orientation,
)
from tunesmith_runtime.media.colours import Conversion
from tunesmith_runtime.media.picture_error import PictureError, PictureFault
from tunesmith_runtime.media.pictures import PictureLimits, read_picture

FRAMES = [Image.new("RGB", (8, 6), colour) for colour in (RED, GREEN, BLUE)]
GROUND = Image.effect_noise((24, 17), 90).convert("RGB")
EVERY_KIND = [
    encoded(GROUND, "JPEG"),
    encoded(
        GROUND,
        "JPEG",
        progressive=True,
        exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
    ),
    encoded(GROUND.convert("CMYK"), "JPEG"),
    encoded(GROUND, "PNG"),
    encoded(GROUND.convert("P"), "PNG", transparency=3),
    encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]),
    encoded(GROUND, "GIF"),
    encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    encoded(GROUND, "WEBP"),
    encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], lossless=True),
    encoded(GROUND, "BMP"),
    encoded(GROUND, "TIFF"),
    encoded(GROUND, "TIFF", compression="tiff_lzw"),
    encoded(GROUND, "AVIF"),
]


def refusal(content: bytes, limits: PictureLimits | None = None) -> PictureError:
    with pytest.raises(PictureError) as found:
        read_picture(content, limits or PictureLimits())
    assert found.value.hint
    return found.value


def difference(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of a channel."""
    return max(high for _, high in ImageChops.difference(one, other).getextrema())


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG"])
def test_pixels_are_those_of_the_file(format_: str) -> None:
    exact = {"quality": 100, "subsampling": "4:4:4"}
    options = {"WEBP": {"lossless": True}, "JPEG": exact, "AVIF": exact}
    picture = read_picture(encoded(corner(), format_, **options.get(format_, {})))
    assert (picture.pixels.mode, picture.pixels.size, picture.conversions) == ("RGB", (40, 20), frozenset())
    assert difference(picture.pixels, corner()) <= (8 if format_ in ("AVIF", "JPEG") else 0)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_an_orientation_gives_the_pixels_of_a_turned_copy(format_: str, orientation: int) -> None:
    plain = read_picture(encoded(corner(), format_)).pixels
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain.info["exif"] = exif.tobytes()
    turned = ImageOps.exif_transpose(plain)
    picture = read_picture(with_orientation(corner(), orientation, format_))
    assert picture.conversions == {Conversion.TURNED}
    assert picture.pixels.size == turned.size
    assert difference(picture.pixels, turned) == 0


def test_orientation_6_puts_the_red_corner_at_the_top_right() -> None:
    pixels = read_picture(with_orientation(corner(), 6, "PNG")).pixels
    assert pixels.size == (20, 40)
    assert (pixels.getpixel((19, 0)), pixels.getpixel((0, 0)), pixels.getpixel((19, 39))) == (RED, BLUE, BLUE)


def test_nothing_turns_the_pixels_again() -> None:
    pixels = read_picture(with_orientation(corner(), 6)).pixels
    assert ImageOps.exif_transpose(pixels).size == pixels.size == (20, 40)
    assert pixels.info == {}


def test_damaged_exif_data_leave_the_picture_as_it_is() -> None:
    picture = read_picture(encoded(corner(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
    assert (picture.pixels.size, picture.conversions) == ((40, 20), frozenset())


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_an_animation_is_its_first_frame(format_: str) -> None:
    picture = read_picture(encoded(FRAMES[0], format_, save_all=True, append_images=FRAMES[1:]))
    assert picture.conversions == {Conversion.FIRST_FRAME}
    assert difference(picture.pixels, FRAMES[0]) <= (16 if format_ in ("AVIF", "WEBP") else 0)


def test_the_extra_picture_in_the_jpeg_of_a_phone_is_no_animation() -> None:
    picture = read_picture(encoded(corner(), "MPO", save_all=True, append_images=[corner(4, 4)]))
    assert (picture.pixels.size, picture.conversions) == ((40, 20), frozenset())


@pytest.mark.parametrize(
    ("content", "fault", "sentence"),
    [
        (b"", PictureFault.EMPTY, "0 bytes"),
        (b"not a picture", PictureFault.UNKNOWN_FORMAT, "begins with b'not a pictur'"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", PictureFault.UNKNOWN_FORMAT, "SVG drawing"),
        (b"<!DOCTYPE html><html><svg/></html>", PictureFault.UNKNOWN_FORMAT, "web page"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", PictureFault.UNKNOWN_FORMAT, "HEIC"),
        (b"\x89PNG\r\n\x1a\n", PictureFault.DAMAGED, "damaged PNG"),
        (png(0, 5, 8, RGB, b""), PictureFault.DAMAGED, "damaged PNG"),
        (encoded(GROUND, "PNG")[:-200], PictureFault.DAMAGED, "truncated"),
        (encoded(GROUND, "JPEG")[:-200], PictureFault.DAMAGED, "truncated"),
    ],
)
def test_what_is_no_whole_picture_is_refused(content: bytes, fault: PictureFault, sentence: str) -> None:
    found = refusal(content)
    assert found.fault is fault
    assert sentence in str(found)


def test_sizes_are_checked_before_pixels_are_decoded() -> None:
    bomb = png(100_000, 100_000, 8, RGB, b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = refusal(bomb)
    assert (found.fault, str(found)) == (
        PictureFault.TOO_MANY_PIXELS,
        "is 100000 x 100000 pixels; at most 178,956,970 are read",
    )
    assert refusal(encoded(corner(), "PNG")[:-60], PictureLimits(pixels=799)).fault is PictureFault.TOO_MANY_PIXELS
    assert read_picture(encoded(corner(), "PNG"), PictureLimits(pixels=800)).pixels.size == (40, 20)


def test_a_tile_that_is_larger_than_its_picture_counts() -> None:
    tiled = tiff(
        (256, 8), (257, 8), (258, 8), (259, 5), (262, 1), (277, 1), (322, 60000), (323, 60000), (324, 8), (325, 9)
    )
    assert "60000 x 60000" in str(refusal(tiled))


def test_a_file_of_too_many_bytes_is_refused() -> None:
    content = encoded(corner(), "PNG")
    found = refusal(content, PictureLimits(size_bytes=len(content) - 1))
    assert found.fault is PictureFault.TOO_MANY_BYTES
    assert read_picture(content, PictureLimits(size_bytes=len(content)))


@given(content=st.sampled_from(EVERY_KIND), data=st.data())
def test_damage_gives_a_picture_or_a_picture_error(content: bytes, data: st.DataObject) -> None:
    damaged = bytearray(content[: data.draw(st.integers(0, len(content)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = read_picture(bytes(damaged), PictureLimits(pixels=1 << 20))
    except PictureError:
        return
    assert picture.pixels.mode == "RGB"


def test_every_byte_of_a_header_may_be_wrong() -> None:
    causes = set()
    for content in EVERY_KIND:
        for at in range(min(64, len(content))):
            for wrong in (b"\0", b"\xff"):
                try:
                    read_picture(content[:at] + wrong + content[at + 1 :], PictureLimits(pixels=1 << 20))
                except PictureError as error:
                    causes.add(type(error.__cause__))
    assert {SyntaxError, OSError, ValueError} <= causes


def test_a_cut_through_the_pixels_is_never_filled_up() -> None:
    for content in EVERY_KIND:
        if not read_picture(content).conversions & {Conversion.FIRST_FRAME}:
            assert refusal(content[: len(content) * 2 // 3]).fault is PictureFault.DAMAGED


def test_threads_read_at_once_and_no_setting_of_pillow_changes() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, [*warnings.filters])
    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(read_picture, EVERY_KIND * 8)]
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, [*warnings.filters]) == before
    for index, picture in enumerate(found):
        assert difference(picture.pixels, found[index % len(EVERY_KIND)].pixels) == 0


def test_hidden_colours_do_not_show() -> None:
    sticker = Image.new("RGBA", (4, 4), (*RED, 0))
    sticker.paste((*BLUE, 255), (1, 1, 3, 3))
    for format_ in ("PNG", "WEBP"):
        picture = read_picture(encoded(sticker, format_, **({"lossless": True} if format_ == "WEBP" else {})))
        assert picture.conversions == {Conversion.FLATTENED}
        assert [picture.pixels.getpixel(at) for at in ((0, 0), (1, 1), (3, 3))] == [WHITE, BLUE, WHITE]
