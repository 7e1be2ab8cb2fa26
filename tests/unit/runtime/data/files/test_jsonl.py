"""Lines of a data file: an object, or a failure with file and line, in bounded memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.files import read_rows, text
from tunesmith_runtime.data.files.place import Place, bad_row
from tunesmith_runtime.errors import RunFailure

URI = "s3://data/train.jsonl"
SOUND = b'{"text": "a"}'


def rows(tmp_path: Path, content: bytes) -> list[tuple[str, dict[str, Any]]]:
    file = tmp_path / "00.jsonl"
    file.write_bytes(content)
    return [(str(place), row) for place, row in read_rows(file, URI)]


@pytest.mark.parametrize(
    "content",
    [
        SOUND + b"\n\n   \n" + SOUND,
        SOUND + b"\r\n\r\n\r\n" + SOUND + b"\r\n",
        b"\xef\xbb\xbf" + SOUND + b"\n\xef\xbb\xbf\n\t\n" + SOUND,
    ],
)
def test_blank_lines_line_ends_and_byte_order_marks_are_no_rows(tmp_path: Path, content: bytes) -> None:
    assert rows(tmp_path, content) == [("line 1", {"text": "a"}), ("line 4", {"text": "a"})]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"text": "a",}', "column 14 is not JSON"),
        (b'{"text": "a"} {"text": "b"}', "column 15 is not JSON: Extra data"),
        (b"{'text': 'a'}", "column 2 is not JSON"),
        (b'{"text": "a\x00"}', "column 12 is not JSON: Invalid control character"),
        (b"\x00" * 100, "column 1 is not JSON"),
        (b'{"text": NaN}', "NaN is not JSON"),
        (b'{"text": "a", "score": -Infinity}', "-Infinity is not JSON"),
        (b'{"text": "a", "score": 1e999}', "the number 1e999 is too large"),
        (b'{"n": ' + b"9" * 10_000 + b"}", "a number has 10000 digits"),
        (b'{"text": "a", "text": "b"}', "the key 'text' twice"),
        (b'{"a": [{"b": 1, "b": 1}]}', "the key 'b' twice"),
        (b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}", "nested deeper than 100 levels"),
        (b'{"a": ' + b"[" * 1_000 + b"]" * 1_000 + b"}", "nested deeper than 100 levels"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper than 100 levels"),
        (b'{"a":' * 100_000, "nested deeper than 100 levels"),
        (rb'{"text": "a \ud83d"}', "text has half of a UTF-16 pair"),
        (rb'{"a \udc00": 1}', r"a \udc00 has half of a UTF-16 pair"),
        (rb'{"messages": [{"content": "\uD83d x"}]}', "messages[0].content has half of a UTF-16 pair"),
        (b'{"text": "\xed\xa0\xbd"}', "byte 11 is not UTF-8"),
        (b'{"text": "caf\xe9"}', "byte 14 is not UTF-8"),
        (b"null", "is null; expected one JSON object"),
        (b'"text"', "is a string; expected one JSON object"),
        (b"PAR1\x15\x04\x15", "column 1 is not JSON"),
    ],
)
def test_a_line_that_is_no_row_is_named_with_what_is_wrong(tmp_path: Path, line: bytes, words: str) -> None:
    with pytest.raises(RunFailure) as failure:
        rows(tmp_path, SOUND + b"\n\n" + line + b"\n" + SOUND)
    assert failure.value.failure is FailureClass.BAD_ROW
    assert failure.value.message.startswith("train.jsonl line 3: ")
    assert words in failure.value.message
    assert failure.value.message.encode()


def test_a_whole_pair_of_surrogates_is_a_character(tmp_path: Path) -> None:
    assert rows(tmp_path, rb'{"text": "\ud83d\ude00"}') == [("line 1", {"text": "😀"})]


@pytest.mark.parametrize("content", [b"[\n" + SOUND + b"\n]\n", b"[" + SOUND + b"]", b'{\n  "text": "a"\n}'])
def test_a_file_that_is_one_value_is_refused_with_the_command_that_makes_lines_of_it(
    tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(RunFailure, match=r"train\.jsonl line 1: ") as failure:
        rows(tmp_path, content)
    assert "jq -c" in (failure.value.hint or "")


def test_a_line_beyond_the_limit_is_refused_without_reading_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_LINE_BYTES", 1 << 20)
    file = tmp_path / "00.jsonl"
    with file.open("wb") as out:
        out.write(SOUND + b"\n")
        out.truncate(1 << 30)  # a gigabyte of NUL without a line end, sparse on disk
    tracemalloc.start()
    with pytest.raises(RunFailure, match=r"train\.jsonl line 2: is longer than 1 MiB"):
        list(read_rows(file, URI))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_the_message_of_a_line_is_short_and_can_be_written(tmp_path: Path) -> None:
    failure = bad_row(URI, Place(3), "x" * 10_000 + "\ud83d")
    assert len(failure.message.encode()) < 1_200
    assert bad_row(URI, Place(3), "half \ud83d").message == rf"train.jsonl line 3: half \ud83d ({URI})"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary() | st.lists(st.binary(max_size=20) | st.just(SOUND)).map(b"\n".join))
def test_any_bytes_are_rows_or_a_bad_row(tmp_path: Path, content: bytes) -> None:
    wrong: RunFailure | None = None
    found: list[tuple[str, dict[str, Any]]] = []
    try:
        found = rows(tmp_path, content)
    except RunFailure as failure:
        wrong = failure
    assert wrong is None or (wrong.failure is FailureClass.BAD_ROW and wrong.message.startswith("train.jsonl"))
    assert all(isinstance(row, dict) for _, row in found)
