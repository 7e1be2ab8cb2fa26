"""The part of a data set that a split names, over all of its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith_runtime.data.dataset_rows import dataset_rows
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
