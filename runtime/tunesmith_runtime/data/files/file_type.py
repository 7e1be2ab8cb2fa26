"""What a type of data file is: the endings of its names and the reader of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tunesmith_runtime.data.files.place import Place
from tunesmith_runtime.data.files.source import Source
from tunesmith_runtime.data.row_error import RowError

Row = dict[str, Any]


@dataclass(frozen=True)
class FileType:
    """A type of data file."""

    name: str
    """Its name in messages."""
    endings: tuple[str, ...]
    """Endings of file names, before that of a compression; the first is used for local copies."""
    read: Callable[[Source], Iterator[tuple[Place, Row | RowError]]]
    """Yields place and row in bounded memory; a RowError for a row that cannot be read, if those after it can. Raises RunFailure
    (BadRow) with file and place."""
    count: Callable[[Source], int] | None = None
    """Returns the number of rows without reading them all, where the type allows it."""
