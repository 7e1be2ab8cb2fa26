"""Parquet and Arrow: rows as Python data, nulls that pad structs dropped, faults named by file and row."""

from __future__ import annotations

import datetime
import decimal
import io
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.runtime.data.files.support import refusal, rows_of
from tunesmith_runtime.data.files.columns import batch_rows


def written(table: pyarrow.Table, name: str, **options: Any) -> bytes:
    """A table as a file of the type in `name`: Parquet, an Arrow file, or an Arrow stream (.stream.arrow)."""
    out = io.BytesIO()
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(table, out, **options)
        return out.getvalue()
    new = pyarrow.ipc.new_stream if name.endswith(".stream.arrow") else pyarrow.ipc.new_file
    with new(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


NAMES = ["a.parquet", "a.arrow", "a.stream.arrow"]
ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1}], "n": 1},
    {"messages": [], "n": None},
    {
        "messages": [{"role": "user", "content": "c", "tool_calls": [{"id": "1", "arguments": {"city": "Oslo"}}]}],
        "n": 3,
    },
]


@pytest.mark.parametrize("name", NAMES)
def test_nested_rows_are_read_without_the_nulls_that_pad_them(tmp_path: Path, name: str) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    assert table.to_pylist() != ROWS
    rows = rows_of(tmp_path, name, written(table, name))
    assert rows == [(f"row {number}", row) for number, row in enumerate(ROWS, start=1)]


@pytest.mark.parametrize("name", NAMES)
def test_values_that_json_lacks_are_text_missing_or_bytes(tmp_path: Path, name: str) -> None:
    table = pyarrow.table(
        {
            "price": pyarrow.array([decimal.Decimal("1.50")]),
            "day": pyarrow.array([datetime.date(2026, 11, 29)]),
            "time": pyarrow.array([datetime.datetime(2026, 11, 29, 6, 30)], pyarrow.timestamp("us", tz="UTC")),
            "score": pyarrow.array([float("nan")]),
            "image": pyarrow.array([{"bytes": b"\xff", "path": "a.png"}]),
            "kind": pyarrow.array(["x"]).dictionary_encode(),
            "map": pyarrow.array([[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        }
    )
    ((_, row),) = rows_of(tmp_path, name, written(table, name))
    assert row == {
        "price": "1.50",
        "day": "2026-11-29",
        "time": "2026-11-29T06:30:00+00:00",
        "score": None,
        "image": {"bytes": b"\xff", "path": "a.png"},
        "kind": "x",
        "map": {"k": 1},
    }


@pytest.mark.parametrize("name", NAMES)
def test_two_columns_or_fields_of_one_name_are_refused(tmp_path: Path, name: str) -> None:
    columns = [pyarrow.array(["a"]), pyarrow.array(["b"])]
    table = pyarrow.Table.from_arrays(columns, names=["text", "text"])
    assert "2 columns are named 'text'" in refusal(tmp_path, name, written(table, name)).message
    pair = pyarrow.StructArray.from_arrays(columns, names=["x", "x"])
    nested = pyarrow.table({"pair": pair})
    if name != "a.parquet":  # which cannot be written
        assert "2 fields of 'pair' are named 'x'" in refusal(tmp_path, name, written(nested, name)).message


def test_a_type_without_rows_is_refused_by_its_name(tmp_path: Path) -> None:
    table = pyarrow.table({"took": pyarrow.array([datetime.timedelta(seconds=1)])})
    message = refusal(tmp_path, "a.arrow", written(table, "a.arrow")).message
    assert "column 'took' is of type duration[us], which is not read" in message


@pytest.mark.parametrize("name", ["a.parquet", "a.stream.arrow"])
def test_a_text_that_is_not_utf_8_is_named_by_its_row(tmp_path: Path, name: str) -> None:
    values = pyarrow.array([b"a", b"b", b"\xff", b"c"])
    text = pyarrow.Array.from_buffers(pyarrow.string(), 4, values.buffers())
    failure = refusal(tmp_path, name, written(pyarrow.table({"text": text}), name))
    assert failure.message.startswith(f"{name} row 3: " if name == "a.parquet" else f"{name}: is damaged")


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_page_is_refused(tmp_path: Path, name: str) -> None:
    table = pyarrow.table({"text": [f"{number * 7919:08}" for number in range(20_000)]})
    content = bytearray(written(table, name, **({"row_group_size": 1_000} if name == "a.parquet" else {})))
    middle = len(content) // 2
    content[middle : middle + 64] = b"\xff" * 64
    message = refusal(tmp_path, name, bytes(content)).message
    assert "damaged" in message or "cannot be read" in message


@pytest.mark.parametrize("name", NAMES)
def test_all_rows_of_many_batches_are_read_once_in_order(tmp_path: Path, name: str) -> None:
    table = pyarrow.table({"n": list(range(3_000))})
    content = written(table, name, **({"row_group_size": 700} if name == "a.parquet" else {}))
    rows = rows_of(tmp_path, name, content)
    assert [(place, row["n"]) for place, row in rows] == [(f"row {n + 1}", n) for n in range(3_000)]


def test_a_batch_is_small_where_rows_are_large() -> None:
    assert batch_rows(1_000_000, 100 << 20) == 256
    assert batch_rows(100, 800 << 20) == 1
    assert batch_rows(0, 0) == 1


values = st.recursive(
    st.none() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "text": st.none() | st.text(max_size=5),
                "n": st.none() | st.integers(-(2**63), 2**63 - 1),
                "x": st.none() | st.floats(allow_nan=False),
                "turns": st.none()
                | st.lists(st.dictionaries(st.sampled_from(["role", "content"]), st.text(max_size=3))),
            }
        ),
        min_size=1,
        max_size=6,
    ),
    name=st.sampled_from(NAMES),
)
def test_what_pyarrow_writes_is_read_back_equal(tmp_path: Path, rows: list[dict[str, Any]], name: str) -> None:
    turn = pyarrow.struct({"role": pyarrow.string(), "content": pyarrow.string()})
    kinds = {"text": pyarrow.string(), "n": pyarrow.int64(), "x": pyarrow.float64(), "turns": pyarrow.list_(turn)}
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(kinds))
    assert [row for _, row in rows_of(tmp_path, name, written(table, name))] == rows
