"""JSON documents: an array of objects, an object whose key `data` holds one, or objects one after the other.

The text is parsed object by object, so that memory grows with the largest object and not with the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tunesmith_runtime.data.files.file_type import FileType, Row
from tunesmith_runtime.data.files.place import Place, bad_row
from tunesmith_runtime.data.files.source import Source
from tunesmith_runtime.data.files.text import MAX_LINE_BYTES, text_chunks
from tunesmith_runtime.data.json_text import parse, parse_at
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import kind_of
from tunesmith_runtime.errors import RunFailure

MAX_OBJECT_CHARACTERS = MAX_LINE_BYTES
MAX_REST_CHARACTERS = 1 << 20
"""The most text after the array of the key `data`."""
UNFINISHED_CHARACTERS = 16
"""An error this close to the end of the text at hand may only mean that a literal, number or escape goes on."""

_SPACE = re.compile(r"[ \t\n\r]*")
_DATA = re.compile(r'\{[ \t\n\r]*"data"[ \t\n\r]*:[ \t\n\r]*(?=\[)')


class _Text:
    """The unread part of a document, of which only the beginning is in memory."""

    def __init__(self, source: Source) -> None:
        self._uri, self._chunks = source.uri, text_chunks(source)
        self._text, self._position, self._line = "", 0, 1
        self._passed, self._line_start = 0, 0
        """Characters before `_text`, and before the line at hand."""
        self._is_whole = False
        self._row = 0

    @property
    def place(self) -> Place:
        """Where the next value begins, or the next row if rows are counted."""
        return Place(self._line, self._row)

    def next(self) -> str:
        """The next character that is not white space, which stays unread; empty at the end."""
        while True:
            space = _SPACE.match(self._text, self._position)
            assert space is not None
            self._pass(space.end())
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_more(1):
                return ""

    def skip(self) -> None:
        """Pass the next character."""
        self._pass(self._position + 1)

    def skip_data_key(self) -> bool:
        """Pass the beginning of an object with the array `data` as its first value, up to the array, if it is next."""
        while len(self._text) - self._position < 1 << 10 and self._read_more(1):
            pass
        found = _DATA.match(self._text, self._position)
        if found:
            self._pass(found.end())
        return found is not None

    def row(self) -> Row | RowError:
        """Pass and return the next value, which is a row, or what is wrong with it."""
        self._row += 1
        value = self._value()
        return value if isinstance(value, dict) else RowError(f"is {kind_of(value)}; expected an object")

    def rest(self) -> str:
        """All of the text that is left, up to MAX_REST_CHARACTERS."""
        while len(self._text) - self._position <= MAX_REST_CHARACTERS and self._read_more(1):
            pass
        return self._text[self._position : self._position + MAX_REST_CHARACTERS]

    def bad(self, sentence: str, hint: str | None = None) -> RunFailure:
        """The failure of the next value."""
        return bad_row(self._uri, self.place, sentence, hint)

    def _value(self) -> Any:
        wanted = 1
        while True:
            try:
                value, end = parse_at(self._text, self._position)
            except json.JSONDecodeError as error:
                at_hand = len(self._text) - self._position
                if self._may_go_on(error) and at_hand <= MAX_OBJECT_CHARACTERS and self._read_more(wanted):
                    wanted = 2 * at_hand
                    continue
                raise self._syntax(error) from error
            except RowError as error:
                raise self.bad(str(error)) from error
            if end == len(self._text) and not isinstance(value, dict | list) and self._read_more(1):
                continue  # a number may go on
            self._pass(end)
            return value

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        is_near_end = error.pos >= len(self._text) - UNFINISHED_CHARACTERS
        return not self._is_whole and (is_near_end or error.msg.startswith("Unterminated string"))

    def _syntax(self, error: json.JSONDecodeError) -> RunFailure:
        if len(self._text) - self._position > MAX_OBJECT_CHARACTERS:
            return self.bad(f"is longer than {MAX_OBJECT_CHARACTERS >> 20} Mi characters, or never ends: {error.msg}")
        if self._is_whole and error.pos >= len(self._text):
            return self.bad("the file ends within a value: it is truncated")
        line_end = self._text.rfind("\n", self._position, error.pos)
        line = self._line + self._text.count("\n", self._position, error.pos)
        column = error.pos - line_end if line_end >= 0 else self._passed + error.pos - self._line_start + 1
        return self.bad(f"line {line} column {column} is not JSON: {error.msg}")

    def _pass(self, end: int) -> None:
        if (lines := self._text.count("\n", self._position, end)) > 0:
            self._line += lines
            self._line_start = self._passed + self._text.rfind("\n", self._position, end) + 1
        self._position = end

    def _read_more(self, characters: int) -> bool:
        """Read at least so many characters more, unless the file ends. Returns whether there were any."""
        parts, size = list[str](), 0
        while size < characters and not self._is_whole:
            piece = next(self._chunks, None)
            self._is_whole = piece is None
            parts.append(piece or "")
            size += len(piece or "")
        if size:
            self._text = "".join([self._text[self._position :], *parts])
            self._passed += self._position
            self._position = 0
        return size > 0


def read(source: Source) -> Iterator[tuple[Place, Row | RowError]]:
    """Yield the rows of a JSON document."""
    text = _Text(source)
    first = text.next()
    if first == "[":
        yield from _items(text)
        if text.next():
            raise text.bad("text follows the array; expected the end of the file")
    elif first == "{" and text.skip_data_key():
        yield from _items(text)
        try:
            parse('{"data":[]' + text.rest())
        except RowError as error:
            raise text.bad(f"what follows the array `data` is not the end of an object: {error}") from error
    elif first == "{":
        yield from _objects(text)
    elif first:
        raise text.bad(f"begins with {first!r}; expected an array of objects, or objects")


def _items(text: _Text) -> Iterator[tuple[Place, Row | RowError]]:
    """The objects of the array that is next."""
    text.skip()
    if text.next() == "]":
        return text.skip()
    while True:
        text.next()
        line = text.place.line
        row = text.row()
        yield Place(line, text.place.row), row
        after = text.next()
        if after not in (",", "]"):
            raise text.bad(
                "is not followed by a comma or the end of the array"
                if after
                else "the file ends within the array: it is truncated"
            )
        text.skip()
        if after == "]":
            return None


def _objects(text: _Text) -> Iterator[tuple[Place, Row | RowError]]:
    """Objects one after the other. A single one with an array of objects as `data` stands for the rows in it."""
    place = text.place
    first = text.row()
    inner = first.get("data") if isinstance(first, dict) else None
    if not text.next() and isinstance(inner, list) and inner and all(isinstance(row, dict) for row in inner):
        yield from ((Place(place.line, number), row) for number, row in enumerate(inner, start=1))
        return
    yield Place(place.line, 1), first
    while text.next():
        line = text.place.line
        row = text.row()
        yield Place(line, text.place.row), row


JSON = FileType("JSON", (".json",), read)
