"""The part of a data set that a split names, over all of its files."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith_api.splits import SPLIT
from tunesmith_runtime.data.dataset_rows import dataset_rows, parts_of
from tunesmith_runtime.workdir import DataFile

FILES = [DataFile(path=f"{number:02}.csv", uri=f"s3://data/{number}.csv", dataset=0) for number in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten rows in three files: 0 to 3, none, and 4 to 9."""
    for file, rows in zip(FILES, (range(4), range(0), range(4, 10)), strict=True):
        (tmp_path / file.path).write_text("n\n" + "".join(f"{row}\n" for row in rows))
    return tmp_path


def rows_of(folder: Path, split: str | None) -> list[int]:
    return [int(row["n"]) for _, _, row in dataset_rows(folder, FILES, split)]


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        (None, range(10)),
        ("train", range(10)),
        ("train[:]", range(10)),
        ("train[:90%]", range(9)),
        ("train[90%:]", range(9, 10)),
        ("train[:25%]", range(2)),  # rounded half to even, as `datasets` does
        ("train[3:6]", range(3, 6)),
        ("train[-2:]", range(8, 10)),
        ("train[:-20%]", range(8)),
        ("train[8:99]", range(8, 10)),
        ("train[6:3]", range(0)),
    ],
)
def test_a_split_names_rows_of_all_files(folder: Path, split: str | None, rows: range) -> None:
    assert rows_of(folder, split) == list(rows)


bounds = st.none() | st.tuples(st.integers(-12, 12), st.just("")) | st.tuples(st.integers(-100, 100), st.just("%"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(start=bounds, stop=bounds)
def test_the_parts_of_the_files_are_the_part_of_the_data_set(
    folder: Path, start: tuple[int, str] | None, stop: tuple[int, str] | None
) -> None:
    texts = ["" if bound is None else f"{bound[0]}{bound[1]}" for bound in (start, stop)]
    split = f"train[{texts[0]}:{texts[1]}]"
    assert SPLIT.admits(split)
    parts = parts_of([(folder / file.path, file.uri) for file in FILES], split)
    found = [
        int(row["n"])
        for file, part in zip(FILES, parts, strict=True)
        for _, _, row in islice(dataset_rows(folder, [file], None), *part)
    ]
    assert found == rows_of(folder, split)
