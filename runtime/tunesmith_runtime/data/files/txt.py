"""Plain text: each line that is not blank is a row `{"text": LINE}`, as in the tools of the field."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith_runtime.data.files.file_type import FileType, Row
from tunesmith_runtime.data.files.place import Place, bad_row
from tunesmith_runtime.data.files.source import Source
from tunesmith_runtime.data.files.text import text_lines


def read(source: Source) -> Iterator[tuple[Place, Row]]:
    """Yield the lines of a text."""
    for number, line in text_lines(source, "break the line"):
        if "\0" in line:
            raise bad_row(source.uri, Place(number), "has a NUL character, which no text holds", "remove it")
        if line.strip():
            yield Place(number), {"text": line.removesuffix("\n").removesuffix("\r")}


TXT = FileType("text", (".txt",), read)
