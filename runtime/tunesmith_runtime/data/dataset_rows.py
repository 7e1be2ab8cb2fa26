"""The rows of a data set: those of its files, one after the other, or the part of them that `split` names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from tunesmith_api.splits import parse_split
from tunesmith_runtime.data.files import count_rows, rows_or_errors
from tunesmith_runtime.data.files.file_type import Row
from tunesmith_runtime.data.files.place import Place
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.workdir import DataFile


def dataset_rows(
    folder: Path, files: Sequence[DataFile], split: str | None
) -> Iterator[tuple[DataFile, Place, Row | RowError]]:
    """Yield file, place and row, or what is wrong with it. `split`: the field of the data set; a part of it may need a count of
    all rows first.

    Raises RunFailure (BadRow).
    """
    rows = ((file, *row) for file in files for row in _rows_of(folder, file))
    if split is None:
        return rows
    part = parse_split(split)
    count = sum(_count_rows(folder, file) for file in files) if part.needs_count else None
    return islice(rows, *part.rows(count))


def _count_rows(folder: Path, file: DataFile) -> int:
    return 1 if file.caption_of else count_rows(folder / file.path, file.uri)


def _rows_of(folder: Path, file: DataFile) -> Iterator[tuple[Place, Row | RowError]]:
    """The rows of a file: the lines of a caption are one, with its image."""
    rows = rows_or_errors(folder / file.path, file.uri)
    if file.caption_of is None:
        yield from rows
        return
    lines = [row["text"] if isinstance(row, dict) else row for _, row in rows]
    error = next((line for line in lines if isinstance(line, RowError)), None)
    yield Place(1), error or {"file_name": file.caption_of, "text": "\n".join(map(str, lines))}
