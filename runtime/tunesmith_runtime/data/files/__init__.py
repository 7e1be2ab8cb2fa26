"""Data files: a module for each type, found by the ending of a file's name. Each may be compressed (.gz, .zst)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tunesmith_runtime.data.files.arrow import ARROW
from tunesmith_runtime.data.files.csv_table import CSV, TSV
from tunesmith_runtime.data.files.file_type import FileType, Row
from tunesmith_runtime.data.files.json_document import JSON
from tunesmith_runtime.data.files.jsonl import JSONL
from tunesmith_runtime.data.files.parquet import PARQUET
from tunesmith_runtime.data.files.place import Place, bad_row
from tunesmith_runtime.data.files.source import COMPRESSIONS, Source
from tunesmith_runtime.data.files.txt import TXT
from tunesmith_runtime.data.row_error import RowError

FILE_TYPES: dict[str, FileType] = {each.name: each for each in (JSONL, PARQUET, ARROW, CSV, TSV, JSON, TXT)}
"""The types that are read, in the order in which a folder's type is chosen."""


def type_of(name: str) -> FileType | None:
    """The type of a file by its name; None for an ending that no type has."""
    ending = _split(name)[1].lower()
    return next((each for each in FILE_TYPES.values() if ending in each.endings), None)


def stem_of(name: str) -> str:
    """A file's name without the endings of type and compression."""
    return _split(Path(name).name)[0] if type_of(name) else Path(name).stem


def ending_of(name: str) -> str:
    """The ending for a local copy of a file: those of type and compression. A name without a known one is JSON lines."""
    found = type_of(name) or JSONL
    return found.endings[0] + _split(name)[2].lower()


def of_one_type(names: Iterable[str]) -> list[str]:
    """The names of a folder's files of rows, in their order: those of the first type that it has."""
    types = {name: found for name in names if (found := type_of(name))}
    first = next((each for each in FILE_TYPES.values() if each in types.values()), None)
    return [name for name, found in types.items() if found is first]


def read_rows(path: Path, uri: str) -> Iterator[tuple[Place, Row]]:
    """Yield place and row for each row of a local file, whose name has its type, in bounded memory.

    Raises RunFailure (BadRow) with the name of `uri` and the place.
    """
    for place, row in rows_or_errors(path, uri):
        if isinstance(row, RowError):
            raise bad_row(uri, place, str(row), row.hint) from row
        yield place, row


def rows_or_errors(path: Path, uri: str) -> Iterator[tuple[Place, Row | RowError]]:
    """Like `read_rows`, but yield a RowError for a row that cannot be read, if those after it can."""
    return (type_of(path.name) or JSONL).read(Source(path, uri))


def count_rows(path: Path, uri: str) -> int:
    """The number of rows of a local file. Raises RunFailure (BadRow) as `read_rows` does."""
    found = type_of(path.name) or JSONL
    source = Source(path, uri)
    return found.count(source) if found.count else sum(1 for _ in found.read(source))


def _split(name: str) -> tuple[str, str, str]:
    """Stem, ending of the type and ending of the compression."""
    path = Path(name)
    compression = path.suffix if path.suffix.lower() in COMPRESSIONS else ""
    path = Path(path.name.removesuffix(compression))
    return path.stem, path.suffix, compression
