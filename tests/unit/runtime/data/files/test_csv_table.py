"""CSV and TSV: every cell is text, an empty cell is missing, and a fault is named by file and line."""

from __future__ import annotations

import csv
import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.runtime.data.files.support import refusal, rows_of
from tunesmith_runtime.data.files import csv_table


def test_null_and_na_are_texts_and_only_the_empty_cell_is_missing(tmp_path: Path) -> None:
    content = (
        "question,answer\nWhich JSON word means nothing?,null\nShort for not available?,NA\nSymbol of sodium?,Na\n"
        "Not a number?,NaN\nEmpty one?,\n"
    )
    rows = rows_of(tmp_path, "a.csv", content.encode())
    assert [row["answer"] for _, row in rows] == ["null", "NA", "Na", "NaN", None]
    assert rows[-1][0] == "line 6"


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_cells_stay_text(tmp_path: Path, name: str, separator: str) -> None:
    content = f"a{separator}b\r\n01{separator}True\r\n\r\n 1.0 {separator}1e3\r\n"
    assert rows_of(tmp_path, name, content.encode()) == [
        ("line 2", {"a": "01", "b": "True"}),
        ("line 4", {"a": " 1.0 ", "b": "1e3"}),
    ]


def test_a_quoted_line_break_is_part_of_a_cell_and_later_places_have_line_and_row(tmp_path: Path) -> None:
    content = 'a,b\n1,"x\r\ny ""z"", w"\n2,c\n'
    assert rows_of(tmp_path, "a.csv", content.encode()) == [
        ("line 2 (row 1)", {"a": "1", "b": 'x\r\ny "z", w'}),
        ("line 4 (row 2)", {"a": "2", "b": "c"}),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a,b,a\n1,2,3\n", "a.csv line 1: 2 columns are named 'a'"),
        ("a,b\n1,2\n1,2,3\n", "a.csv line 3: has 3 cells; the header has 2 columns"),
        ("a,b\n1\n", "a.csv line 2: has 1 cells; the header has 2 columns"),
        ('a,b\n1,"x\n2,y\n', "a.csv line 2: is not CSV: unexpected end of data"),
        ('a,b\n1,"x"y\n', "a.csv line 2: is not CSV: ',' expected after '\"'"),
        ("a,b\n1,x\0y\n", "a.csv line 2: has a NUL character"),
        ("a;b\n1;2\n", "a.csv line 1: the columns are separated by ';'; expected ','"),
        ("a,b\r1,2\r", "a.csv line 1: has a carriage return (CR) outside quotes"),
        ('"a";"b"\n"1";"2"\n', "a.csv line 1: the columns are separated by ';'; expected ','"),
        ('"a"\t"b"\n"1"\t"2"\n', "a.csv line 1: the columns are separated by '\\t'; expected ','"),
    ],
)
def test_a_fault_is_named_by_file_and_line(tmp_path: Path, content: str, sentence: str) -> None:
    failure = refusal(tmp_path, "a.csv", content.encode())
    assert failure.message.startswith(sentence)
    assert failure.hint


def test_a_column_without_a_name_is_read_under_its_number(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "a.csv", b",text\n0,x\n") == [("line 2", {"(column 1)": "0", "text": "x"})]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"a,b\n"])
def test_a_table_without_rows_has_none(tmp_path: Path, content: bytes) -> None:
    assert rows_of(tmp_path, "a.csv", content) == []


def test_a_quote_that_is_never_closed_is_refused_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_table, "MAX_RECORD_CHARACTERS", 1 << 20)
    content = b'a,b\n1,"' + b"x" * 99 + (b"\n" + b"x" * 99) * 200_000
    tracemalloc.start()
    failure = refusal(tmp_path, "a.csv", content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert failure.message.startswith("a.csv line 2: is longer than 1 Mi characters, or a quote is never closed")
    assert peak < 24 << 20


def test_a_cell_longer_than_the_default_of_the_csv_module_is_read(tmp_path: Path) -> None:
    text = "x" * 1_000_000
    assert rows_of(tmp_path, "a.csv", f"a,b\n1,{text}\n".encode()) == [("line 2", {"a": "1", "b": text})]


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(cells.filter(str.strip), min_size=2, max_size=4, unique=True),
    table=st.lists(st.lists(cells, min_size=4, max_size=4), max_size=5),
    name=st.sampled_from([("a.csv", ","), ("a.tsv", "\t")]),
)
def test_what_csv_writes_is_read_back_equal(
    tmp_path: Path, names: list[str], table: list[list[str]], name: tuple[str, str]
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=name[1], quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    writer.writerows(row[: len(names)] for row in table)
    content = text.getvalue().encode()
    expected = [{key: cell or None for key, cell in zip(names, row, strict=False)} for row in table]
    assert [row for _, row in rows_of(tmp_path, name[0], content)] == expected
