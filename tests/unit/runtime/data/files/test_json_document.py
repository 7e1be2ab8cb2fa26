"""JSON documents: arrays, objects and the array of the key `data`, object by object."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.runtime.data.files.support import refusal, rows_of
from tunesmith_runtime.data.files import json_document, rows_or_errors, text
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure

ROWS: list[dict[str, Any]] = [{"text": "a"}, {"text": "b", "n": [1, {"x": None}]}, {}]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        f"\ufeff  {json.dumps(ROWS)}\n\n",
        "\n".join(map(json.dumps, ROWS)),
        "".join(json.dumps(row, indent=1) for row in ROWS),
        json.dumps({"data": ROWS}),
        json.dumps({"data": ROWS, "version": "1.0", "more": {"a": [1]}}, indent=2),
        json.dumps({"version": "1.0", "data": ROWS}),
    ],
)
def test_each_form_gives_the_same_rows(tmp_path: Path, content: str) -> None:
    assert [row for _, row in rows_of(tmp_path, "a.json", content.encode())] == ROWS


def test_a_place_is_the_line_where_an_object_begins_and_its_number(tmp_path: Path) -> None:
    content = b'[\n  {"text":\n "a"},\n\n  {"text": "b"}, {"text": "c"}\n]\n'
    assert [place for place, _ in rows_of(tmp_path, "a.json", content)] == [
        "line 2 (row 1)", "line 5 (row 2)", "line 5 (row 3)",
    ]  # fmt: skip


def test_an_object_with_data_that_holds_no_rows_is_a_row(tmp_path: Path) -> None:
    for row in (
        {"text": "a", "data": "x"},
        {"messages": [{"role": "user", "content": "a"}]},
        {"data": [1, 2], "text": "a"},
    ):
        content = json.dumps(dict(reversed(row.items()))).encode()
        assert [found for _, found in rows_of(tmp_path, "a.json", content)] == [row]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('[\n{"text": "a"},\n{"text": }\n]', "a.json line 3 (row 2): line 3 column 10 is not JSON: Expecting value"),
        ('[{"text": "a"} {"text": "b"}]', "a.json line 1 (row 1): is not followed by a comma"),
        ('[{"text": "a"},', "a.json line 1 (row 2): the file ends within a value: it is truncated"),
        ('[{"text": "a"}', "a.json line 1 (row 1): the file ends within the array"),
        ('[\n{"text": "a', "a.json line 2 (row 1): line 2 column 10 is not JSON: Unterminated string"),
        ('[{"text": "a"}] x', "a.json line 1 (row 1): text follows the array"),
        ('[{"text": "a"}, 5]', "a.json line 1 (row 2): is a number; expected an object"),
        ('[{"text": "a"}, [5]]', "a.json line 1 (row 2): is a list; expected an object"),
        ('{"data": [{"text": "a"}], x}', "a.json line 1 (row 1): what follows the array `data` is not"),
        ('{"text": "a", "text": "b"}', "a.json line 1 (row 1): an object has the key 'text' twice"),
        ('{"text": NaN}', "a.json line 1 (row 1): NaN is not JSON"),
        ('{"a": ' + "[" * 1_000 + "]" * 1_000 + "}", "a.json line 1 (row 1): is nested deeper than 100 levels"),
        ("[" * 100_000, "a.json line 1 (row 1): is nested deeper than 100 levels"),
        ('{"text": "\0"}', "a.json line 1 (row 1): line 1 column 11 is not JSON: Invalid control character"),
        (r'{"text": "\ud83d"}', "a.json line 1 (row 1): text has half of a UTF-16 pair"),
        ('"text"', "a.json line 1: begins with '\"'; expected an array of objects, or objects"),
    ],
)
def test_a_fault_is_named_by_line_and_row(tmp_path: Path, content: str, sentence: str) -> None:
    assert refusal(tmp_path, "a.json", content.encode()).message.startswith(sentence)


def test_a_large_array_is_read_in_bounded_memory(tmp_path: Path) -> None:
    row = json.dumps({"text": "x" * 1_000}).encode()
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.write(b"[" + row)
        for _ in range(40):
            file.write((b",\n" + row) * 1_000)
        file.write(b"]")
    tracemalloc.start()
    count = sum(1 for _ in json_document.read(text.Source(path, "s3://data/a.json")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 40_001
    assert peak < 12 << 20


def test_an_object_that_never_ends_is_refused_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_document, "MAX_OBJECT_CHARACTERS", 1 << 20)
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.write(b'[{"text": "')
        for _ in range(64):
            file.write(b"x" * (1 << 20))
    tracemalloc.start()
    with pytest.raises(RunFailure, match="is longer than 1 Mi characters, or never ends"):
        list(json_document.read(text.Source(path, "s3://data/a.json")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20


json_rows = st.lists(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    ),
    max_size=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=json_rows,
    indent=st.sampled_from([None, 0, 2]),
    is_ascii=st.booleans(),
    chunk=st.sampled_from([1, 7, 64, 1 << 20]),
)
def test_what_json_writes_is_read_back_equal_however_it_is_cut(
    tmp_path: Path, rows: list[dict[str, Any]], indent: int | None, is_ascii: bool, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "CHUNK_BYTES", chunk)
        content = json.dumps(rows, indent=indent, ensure_ascii=is_ascii).encode()
        assert [row for _, row in rows_of(tmp_path, "a.json", content)] == rows


@pytest.mark.parametrize("content", ['[{"text": "a"}, null, {"text": "b"}]', '{"text": "a"} null {"text": "b"}'])
def test_rows_after_a_value_that_is_no_object_are_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    rows = [row for _, row in rows_or_errors(tmp_path / "a.json", "s3://data/a.json")]
    assert [str(row) if isinstance(row, RowError) else row["text"] for row in rows] == [
        "a", "is null; expected an object", "b",
    ]  # fmt: skip
