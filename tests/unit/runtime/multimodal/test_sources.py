"""Media are read from the folder of the rows or from a data URI; what cannot be read is a bad row."""

from __future__ import annotations

import base64

import pytest

from tests import tinyvision
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.multimodal.sources import MediaSource

PNG = tinyvision.picture("red", 24, 16)
SOURCE = MediaSource({"s3://data/a.png": PNG, "s3://data/b.png": PNG[:60], "s3://data/empty.png": b""}.get)


@pytest.mark.parametrize("uri", ["s3://data/a.png", f"data:image/png;base64,{base64.b64encode(PNG).decode()}"])
def test_a_picture_is_read(uri: str) -> None:
    picture = SOURCE.picture(uri)
    assert (picture.pixels.size, picture.pixels.mode) == ((24, 16), "RGB")


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("s3://data/none.png", "which does not exist"),
        ("s3://data/b.png", "which is a damaged PNG"),
        ("s3://data/empty.png", "which is empty"),
        ("data:image/png;base64,%%%", "whose base64 is damaged"),
        ("data:image/png,abc", "which is no data URI in base64"),
        ("data:image/png;base64,YWJj", "which is in no format that is read"),
    ],
)
def test_a_picture_that_cannot_be_read_is_named_with_what_to_do(uri: str, sentence: str) -> None:
    with pytest.raises(RowError, match=sentence) as found:
        SOURCE.picture(uri)
    assert uri[:30] in str(found.value)
    assert found.value.hint
