"""Pictures are sent upright and in RGB, as a training reads them."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy
import pytest
from PIL import Image

from tunesmith_runtime.answers.coordinates import Size
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.evaluate.pictures import Pictures
from tunesmith_runtime.media.pictures import read_picture

RED, BLUE = (220, 20, 20), (20, 20, 220)


def encoded(image: Image.Image, format_: str, orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    file = BytesIO()
    image.save(file, format_, exif=exif)
    return file.getvalue()


def two_colours() -> Image.Image:
    """40 x 20 pixels, red on the left and blue on the right."""
    image = Image.new("RGB", (40, 20), RED)
    image.paste(BLUE, (20, 0, 40, 20))
    return image


def read_again(file: Path) -> Image.Image:
    """The pixels that a reader without regard to metadata decodes."""
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize(("format_", "ending"), [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp")])
def test_a_picture_that_needs_no_conversion_is_sent_as_it_is(tmp_path: Path, format_: str, ending: str) -> None:
    content = encoded(two_colours(), format_)
    sent = Pictures({"s3://data/a": content}.get, tmp_path).copy("s3://data/a")
    assert (sent.file.read_bytes(), sent.file.suffix, sent.size) == (content, ending, Size(40, 20))


@pytest.mark.parametrize(
    "content",
    [
        encoded(two_colours(), "JPEG", orientation=6),
        encoded(two_colours(), "BMP"),
        encoded(two_colours(), "TIFF"),
        encoded(two_colours().convert("CMYK"), "JPEG"),
        encoded(Image.fromarray(numpy.array([[0, 300], [30000, 65535]], numpy.uint16)), "PNG"),
        encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG"),
    ],
    ids=["turned", "bmp", "tiff", "cmyk", "16 bits", "transparent"],
)
def test_any_reader_gets_the_pixels_of_a_training(tmp_path: Path, content: bytes) -> None:
    sent = Pictures({"s3://data/a": content}.get, tmp_path).copy("s3://data/a")
    pixels = read_picture(content).pixels
    assert sent.file.suffix == ".png"
    assert sent.size == Size(*pixels.size)
    assert read_again(sent.file).tobytes() == pixels.tobytes()


def test_one_picture_has_one_file(tmp_path: Path) -> None:
    content = encoded(two_colours(), "PNG")
    pictures = Pictures({"s3://data/a": content, "s3://data/b": content}.get, tmp_path / "pictures")
    inline = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    assert len({pictures.copy(uri).file for uri in ("s3://data/a", "s3://data/b", inline)}) == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "names the picture s3://data/a, which does not exist"),
        (b"", "names the picture s3://data/a, which is empty"),
        (encoded(two_colours(), "PNG")[:60], "names the picture s3://data/a, which is a damaged PNG"),
        (b"<html>not found</html>", "names the picture s3://data/a, which is a web page"),
    ],
)
def test_a_picture_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None, problem: str) -> None:
    with pytest.raises(RowError, match=problem) as wrong:
        Pictures({"s3://data/a": content}.get, tmp_path).copy("s3://data/a")
    assert wrong.value.hint
    assert not list(tmp_path.iterdir())
