"""Files of examples: they are read as they were written, in order, and a moved row keeps all its examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith_runtime.data import example_file
from tunesmith_runtime.data.example_file import (
    example_lengths,
    last_answer_starts,
    move_rows,
    open_columns,
    open_examples,
    repeat_rows,
    write_examples,
)
from tunesmith_runtime.data.examples import IGNORED, Example, last_answer_start

tokens = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=1, max_size=6)
examples = tokens.map(lambda pairs: Example([id for id, _ in pairs], [id if has else IGNORED for id, has in pairs]))
rows = st.lists(st.lists(examples, min_size=1, max_size=3), max_size=8)


def as_dicts(rows: list[list[Example]]) -> list[dict[str, Any]]:
    return [{"input_ids": example.input_ids, "labels": example.labels} for row in rows for example in row]


def written(path: Path, rows: list[list[Example]]) -> Path:
    with write_examples(path) as writer:
        for row in rows:
            writer.write(row)
    assert writer.rows == len(rows)
    return path


@pytest.fixture(autouse=True)
def small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_file, "BUFFERED_TOKENS", 10)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows)
def test_examples_are_read_as_they_were_written(tmp_path: Path, rows: list[list[Example]]) -> None:
    path = written(tmp_path / "train.arrow", rows)
    dataset = open_examples(path)
    assert dataset.to_list() == as_dicts(rows)
    assert dataset.column_names == ["input_ids", "labels"]
    lengths = [len(example.input_ids) for row in rows for example in row]
    assert list(example_lengths(dataset.data)) == list(example_lengths(open_columns(path))) == lengths


def test_weights_stay_with_their_rows(tmp_path: Path) -> None:
    kinds = [None, [0.5, 1.0], [2.0, 0.25]]
    rows = [[Example([number, number], [number, number], weights=kinds[number % 3])] for number in range(30)]
    train, validation = written(tmp_path / "train.arrow", rows), tmp_path / "validation.arrow"
    move_rows(train, numpy.arange(30) % 2 == 0, validation)
    repeat_rows(validation, numpy.full(30, 2, numpy.int32))
    for path in (train, validation):
        examples = open_examples(path).to_list()
        assert examples
        assert all(example["weights"] == kinds[example["input_ids"][0] % 3] for example in examples)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows)
def test_the_last_answer_of_each_example_is_found_in_its_columns(tmp_path: Path, rows: list[list[Example]]) -> None:
    path = written(tmp_path / "train.arrow", rows)
    expected = [last_answer_start(example.labels) for row in rows for example in row]
    assert list(last_answer_starts(open_columns(path))) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows, data=st.data())
def test_a_moved_row_keeps_all_its_examples_and_its_order(
    tmp_path: Path, rows: list[list[Example]], data: st.DataObject
) -> None:
    is_moved = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    train, validation = written(tmp_path / "train.arrow", rows), tmp_path / "validation.arrow"
    move_rows(train, numpy.array(is_moved, numpy.bool_), validation)
    for path, moved in ((train, False), (validation, True)):
        kept = [row for row, row_moved in zip(rows, is_moved, strict=True) if row_moved is moved]
        assert open_examples(path).to_list() == as_dicts(kept)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows, data=st.data())
def test_a_row_is_repeated_with_all_its_examples(
    tmp_path: Path, rows: list[list[Example]], data: st.DataObject
) -> None:
    times = data.draw(st.lists(st.integers(0, 9), min_size=len(rows), max_size=len(rows)))
    path = written(tmp_path / "train.arrow", rows)
    repeat_rows(path, numpy.array(times, numpy.int32))
    repeated = [row for row, count in zip(rows, times, strict=True) for _ in range(count)]
    found = open_examples(path)
    assert found.to_list() == as_dicts(repeated)
    assert all(len(chunk) <= 10 for chunk in found.data["input_ids"].chunks)


def test_the_value_of_an_example_is_a_column_where_there_is_one(tmp_path: Path) -> None:
    rows = [[Example([1], [1], value=0.5), Example([2], [2], value=0.5)], [Example([3], [3]), Example([4], [4])]]
    dataset = open_examples(written(tmp_path / "train.arrow", rows))
    assert dataset["value"][:] == [0.5, 0.5, None, None]


def test_examples_are_mapped_from_their_file(tmp_path: Path) -> None:
    dataset = open_examples(written(tmp_path / "train.arrow", [[Example([1], [1])]]))
    assert [entry["filename"] for entry in dataset.cache_files] == [str(tmp_path / "train.arrow")]


def test_a_full_disk_is_an_os_error_with_its_number() -> None:
    with pytest.raises(OSError, match="No space left on device") as error, write_examples(Path("/dev/full")) as writer:
        writer.write([Example([1] * 100_000, [1] * 100_000)])
    assert error.value.errno == 28
