"""Rows of Arrow record batches as Python data, for Parquet and Arrow files.

Arrow has one schema for all rows: a key that only other rows have is null in a struct. Such nulls are dropped, so that a row is
what its author wrote. Decimals and times become text, and a float that is NaN is missing, as pandas writes it.
"""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tunesmith_runtime.data.files.file_type import Row
from tunesmith_runtime.data.files.place import Place, bad_file, bad_row
from tunesmith_runtime.data.files.source import Source, magic_of
from tunesmith_runtime.data.json_text import MAX_DEPTH
from tunesmith_runtime.errors import RunFailure

BATCH_BYTES = 8 << 20
MOST_ROWS = 256
"""Rows that are converted together."""


def batch_rows(rows: int, size_bytes: int) -> int:
    """The number of rows, of `rows` that take `size_bytes` together, that fill a batch."""
    return max(1, min(MOST_ROWS, BATCH_BYTES * rows // max(size_bytes, 1)))


def check_start(source: Source, start: bytes, kind: str) -> None:
    """Raise RunFailure (BadRow) for a file that is empty or of another kind; `start` are its first bytes."""
    if not start:
        raise bad_file(source.uri, f"is empty; expected {kind}")
    magic = magic_of(start)
    if magic and magic.what != kind:
        raise bad_file(source.uri, f"is {magic.what} by its first bytes, not {kind}", magic.hint)


def check_schema(schema: Any, source: Source) -> None:
    """Raise RunFailure (BadRow) for two columns or fields of one name, and for types that hold no data of rows."""
    _check_names(schema.names, source, "columns")
    for field in schema:
        _check_type(field.type, field.name, source, 1)


def _check_names(names: list[str], source: Source, what: str) -> None:
    for name, count in Counter(names).most_common(1):
        if count > 1:
            raise bad_file(source.uri, f"{count} {what} are named {name!r:.80}", "rename or remove all but one")


def _check_type(kind: Any, path: str, source: Source, depth: int) -> None:
    from pyarrow import types

    if depth > MAX_DEPTH:
        raise bad_file(source.uri, f"column {path[:80]!r} is nested deeper than {MAX_DEPTH} levels")
    if types.is_dictionary(kind):
        return _check_type(kind.value_type, path, source, depth + 1)
    if types.is_union(kind) or types.is_duration(kind) or types.is_interval(kind) or types.is_run_end_encoded(kind):
        raise bad_file(
            source.uri,
            f"column {path[:80]!r} is of type {str(kind)[:80]}, which is not read",
            "write the column as text, or remove it",
        )
    fields = [kind.field(index) for index in range(kind.num_fields)]
    if types.is_struct(kind):
        _check_names([field.name for field in fields], source, f"fields of {path[:80]!r}")
    for field in fields:
        _check_type(field.type, f"{path}.{field.name}" if types.is_struct(kind) else path, source, depth + 1)
    return None


def rows_of(batch: Any, source: Source, before: int) -> Iterator[tuple[Place, Row]]:
    """Yield place and row for each row of a record batch that follows `before` rows of its file."""
    maps: Any = "strict" if "map<" in str(batch.schema) else None
    for start in range(0, batch.num_rows, MOST_ROWS):
        part = batch.slice(start, MOST_ROWS)
        try:
            rows = part.to_pylist(maps_as_pydicts=maps)
        except (UnicodeDecodeError, KeyError, ValueError, OverflowError):
            rows = _one_by_one(part, source, before + start, maps)
        for number, row in enumerate(rows, start=before + start + 1):
            yield Place(row=number), {name: _plain(value) for name, value in row.items()}


def _one_by_one(part: Any, source: Source, before: int, maps: Any) -> Iterator[Row]:
    """The rows of a batch in which one cannot be converted. Raises RunFailure (BadRow) at that row."""
    for index in range(part.num_rows):
        try:
            (row,) = part.slice(index, 1).to_pylist(maps_as_pydicts=maps)
        except (UnicodeDecodeError, KeyError, ValueError, OverflowError) as error:
            sentence = f"holds a value that cannot be read: {type(error).__name__}: {error}"
            raise bad_row(source.uri, Place(row=before + index + 1), sentence) from error
        yield row


def _plain(value: Any) -> Any:
    """A value as JSON-like data without the nulls that pad structs. Bytes stay bytes."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value) if isinstance(value, decimal.Decimal | uuid.UUID) else value


@dataclass
class Progress:
    """How far a file has been read."""

    rows: int = 0


@contextmanager
def arrow_failures(source: Source, kind: str) -> Iterator[Progress]:
    """Within the block, raise an error of Arrow as RunFailure (BadRow). Errors of the disk pass."""
    import pyarrow

    progress = Progress()
    try:
        yield progress
    except RunFailure:
        raise
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        hint = "write the file again, and compare its sha256"
        if progress.rows:
            place = Place(row=progress.rows + 1)
            raise bad_row(source.uri, place, f"here or later, the file is damaged: {cause}", hint) from error
        raise bad_file(source.uri, f"is damaged, truncated or not {kind}: {cause}", hint) from error
