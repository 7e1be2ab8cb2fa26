"""JSON lines: an object on each line. Blank lines are skipped."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith_runtime.data.files.file_type import FileType, Row
from tunesmith_runtime.data.files.place import Place
from tunesmith_runtime.data.files.source import Source
from tunesmith_runtime.data.files.text import text_lines
from tunesmith_runtime.data.json_text import parse
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import kind_of

TO_LINES = "write one object on a line, as `jq -c '.[]' FILE` does for an array and `jq -c . FILE` for objects; or name the file .json"


def read(source: Source) -> Iterator[tuple[Place, Row | RowError]]:
    """Yield the rows of a file of JSON lines."""
    for number, line in text_lines(source, TO_LINES):
        if line.isspace() or not line:
            continue
        try:
            row = parse(line)
        except RowError as error:
            begins_array = line.strip() in ("[", "{") or line.lstrip().startswith("[")
            sentence = f"{error}; expected one JSON object on a line"
            yield Place(number), RowError(sentence, TO_LINES if begins_array else None)
            continue
        if not isinstance(row, dict):
            hint = TO_LINES if isinstance(row, list) else None
            sentence = f"is {kind_of(row)}; expected one JSON object on a line"
            yield Place(number), RowError(sentence, hint)
            continue
        yield Place(number), row


JSONL = FileType("JSON lines", (".jsonl", ".ndjson"), read)
