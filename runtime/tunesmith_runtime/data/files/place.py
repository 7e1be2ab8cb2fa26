"""Where a row stands in its file, and failures that name the place."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import NamedTuple

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure

MAX_SENTENCE = 1000


class Place(NamedTuple):
    """Position of a row in its file: the line on which it begins, its number among the rows, or both. Both count from 1."""

    line: int = 0
    """0: the file has no lines."""
    row: int = 0
    """0: the line is enough."""

    def __str__(self) -> str:
        if not self.line:
            return f"row {self.row}"
        return f"line {self.line} (row {self.row})" if self.row else f"line {self.line}"


def bad_row(uri: str, place: Place, sentence: str, hint: str | None = None) -> RunFailure:
    """The failure of a row. The message begins with the name of the file and the place."""
    return _failure(f"{PurePosixPath(uri).name} {place}", sentence, uri, hint)


def bad_file(uri: str, sentence: str, hint: str | None = None) -> RunFailure:
    """The failure of a file that cannot be read from its beginning on."""
    return _failure(PurePosixPath(uri).name, sentence, uri, hint)


def _failure(subject: str, sentence: str, uri: str, hint: str | None) -> RunFailure:
    readable = sentence[:MAX_SENTENCE].encode("utf-8", "backslashreplace").decode()
    return RunFailure(FailureClass.BAD_ROW, f"{subject}: {readable} ({uri})", hint)
