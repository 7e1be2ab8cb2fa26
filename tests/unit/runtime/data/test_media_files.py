"""Rows name images by paths below the folder of the rows, and nothing elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_runtime.data.formats import FORMATS, read
from tunesmith_runtime.data.media_files import MediaFiles, resolved
from tunesmith_runtime.data.records import Media, MultimodalConversation
from tunesmith_runtime.data.row_error import RowError

ROOT = "s3://data/part-0"
FILES = MediaFiles(ROOT, frozenset({"train.jsonl", "a.jpg", "sub/b.png", "sub/train.jsonl"}))


def uri_in(source: str, files: MediaFiles | None = FILES, uri: str = f"{ROOT}/train.jsonl") -> str:
    """The URI of the image that a row of the file `uri` names by `source`."""
    record: Any = read({"image_path": source, "text": "What is it?", "answer": "A kiwi."}, FORMATS["vqa"])
    assert isinstance(record, MultimodalConversation)
    found = resolved(record, files, uri).conversation.messages[0]["content"][0]
    assert isinstance(found, Media)
    return found.sources[0]


@pytest.mark.parametrize(
    ("source", "row", "expected"),
    [
        ("a.jpg", "train.jsonl", "a.jpg"),
        ("./sub\\b.png", "train.jsonl", "sub/b.png"),
        ("b.png", "sub/train.jsonl", "sub/b.png"),
        ("sub/b.png", "sub/train.jsonl", "sub/b.png"),
    ],
)
def test_a_path_is_relative_to_the_file_of_the_row_or_to_the_data(source: str, row: str, expected: str) -> None:
    assert uri_in(source, uri=f"{ROOT}/{row}") == f"{ROOT}/{expected}"


@pytest.mark.parametrize("source", ["b.png", "a.JPG", "sub"])
def test_a_file_that_is_not_there_is_named(source: str) -> None:
    with pytest.raises(RowError, match=rf"names the file '{source}', which is not in {ROOT}"):
        uri_in(source)


def test_where_files_are_not_listed_a_path_is_relative_to_the_file_of_the_row() -> None:
    assert uri_in("./a.jpg", None) == f"{ROOT}/a.jpg"
    with pytest.raises(RowError, match=r"the files beside https://host/train\.jsonl are not read"):
        uri_in("a.jpg", None, "https://host/train.jsonl")


@pytest.mark.parametrize("source", ["../a.jpg", "/etc/passwd", "sub/../../a.jpg", "file:///etc/passwd"])
def test_no_path_leads_out_of_the_folder(source: str) -> None:
    with pytest.raises(RowError, match="outside the folder of the data"):
        uri_in(source, None)


@pytest.mark.parametrize("source", ["https://host/a.jpg", "http://169.254.169.254/", "s3://other/a.jpg"])
def test_a_row_does_not_decide_what_a_pod_connects_to(source: str) -> None:
    with pytest.raises(RowError, match="read from the folder of the rows alone") as found:
        uri_in(source)
    assert found.value.hint == "copy it into the folder of the rows, and name it by its path"


def test_a_data_uri_is_its_own_file() -> None:
    assert uri_in("data:image/png;base64,AAAA") == "data:image/png;base64,AAAA"
