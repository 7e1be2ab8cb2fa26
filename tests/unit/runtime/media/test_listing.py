"""File names are recognized as pictures by one list of endings, in upper or lower case."""

from __future__ import annotations

import pytest
from PIL import Image

from tunesmith_runtime.media.listing import PICTURE_ENDINGS, is_picture
from tunesmith_runtime.media.picture_format import PictureFormat


@pytest.mark.parametrize("name", ["a.jpg", "IMG_1.JPEG", "b.Png", "c.d.webp", "data/e.TIF", "f.AVIF"])
def test_endings_are_pictures_in_any_case(name: str) -> None:
    assert is_picture(name)


@pytest.mark.parametrize("name", ["a.txt", "a.png.txt", "png", "a.svg", "a.jpg/b", "a.mp4", ""])
def test_other_names_are_no_pictures(name: str) -> None:
    assert not is_picture(name)


def test_the_endings_are_those_of_the_formats_that_are_read() -> None:
    formats = Image.registered_extensions()
    assert {formats[ending] for ending in PICTURE_ENDINGS} == {str(format_) for format_ in PictureFormat}
