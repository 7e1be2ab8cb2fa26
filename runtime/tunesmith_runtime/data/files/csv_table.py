"""Tables of text: cells separated by commas (RFC 4180) or tabs, with a header. Every cell is text; an empty cell is missing."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial

from tunesmith_runtime.data.files.file_type import FileType, Row
from tunesmith_runtime.data.files.place import Place, bad_row
from tunesmith_runtime.data.files.source import Source
from tunesmith_runtime.data.files.text import text_lines
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure

MAX_RECORD_CHARACTERS = 16 << 20
"""A quote that is never closed makes all that follows one cell."""

_QUOTES = 'write a quote within a cell twice (""), and quote a cell that holds a line break'
_SEPARATORS = "separate cells by commas, or by tabs in a file named .tsv"
_OTHER_SEPARATOR = re.compile(r'"[^"]*"([;\t|,])')
"""The start of a header of quoted names."""


class _Lines:
    """The lines of a file for csv.reader, with the size of the record at hand."""

    def __init__(self, source: Source) -> None:
        self._uri, self._lines = source.uri, text_lines(source)
        self.number = 0
        """Lines read."""
        self.last = ""
        """The line read last."""
        self._size = 0
        self._start = 1

    def begin_record(self) -> Place:
        """Note that a record begins; its line."""
        self._size, self._start = 0, self.number + 1
        return Place(self._start)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self.number, line = self.number, self.last = next(self._lines)
        self._size += len(line)
        if self._size > MAX_RECORD_CHARACTERS:
            raise bad_row(
                self._uri,
                Place(self._start),
                f"is longer than {MAX_RECORD_CHARACTERS >> 20} Mi characters, or a quote is never closed",
                _QUOTES,
            )
        if "\0" in line:
            raise bad_row(self._uri, Place(self.number), "has a NUL character, which no text holds", "remove it")
        return line


def read(delimiter: str, source: Source) -> Iterator[tuple[Place, Row | RowError]]:
    """Yield the rows of a table. The place of a row is its first line, and its number where cells have held line breaks."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_CHARACTERS))
    lines = _Lines(source)
    records = csv.reader(lines, delimiter=delimiter, strict=True)
    header, row, has_breaks = list[str](), 0, False
    while True:
        place = lines.begin_record()
        try:
            cells = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            raise _not_csv(error, source, place, lines.last, delimiter, is_header=not header) from error
        if not cells or (len(header) > 1 and len(cells) == 1 and not cells[0].strip()):
            continue
        has_breaks = has_breaks or lines.number > place.line
        if not header:
            header = _header(cells, source, place, delimiter)
            continue
        row += 1
        place = Place(place.line, row if has_breaks else 0)
        if len(cells) != len(header):
            sentence = f"has {len(cells)} cells; the header has {len(header)} columns"
            yield place, RowError(sentence, "quote a cell that holds the separator")
            continue
        yield place, {name: cell or None for name, cell in zip(header, cells, strict=True)}


def _not_csv(error: csv.Error, source: Source, place: Place, line: str, delimiter: str, is_header: bool) -> RunFailure:
    """The failure of a record that csv.reader refuses; `line` is its last line."""
    separator = _OTHER_SEPARATOR.match(line) if is_header else None
    if separator and separator[1] != delimiter:
        return bad_row(source.uri, place, _other_separator(separator[1], delimiter), _SEPARATORS)
    if "\r" in line.rstrip("\r\n"):
        sentence = "has a carriage return (CR) outside quotes"
        return bad_row(
            source.uri, place, sentence, "end lines with LF or CRLF, and quote a cell that holds a line break"
        )
    return bad_row(source.uri, place, f"is not CSV: {error}", _QUOTES)


def _other_separator(found: str, expected: str) -> str:
    return f"the columns are separated by {found!r}; expected {expected!r}"


def _header(cells: list[str], source: Source, place: Place, delimiter: str) -> list[str]:
    """The names of the columns. Raises RunFailure (BadRow) for a name that occurs twice and for another separator."""
    other = next((each for each in (";", "\t", "|", ",") if each != delimiter and each in cells[0]), None)
    if len(cells) == 1 and other:
        raise bad_row(source.uri, place, _other_separator(other, delimiter), _SEPARATORS)
    names = [cell or f"(column {number})" for number, cell in enumerate(cells, start=1)]
    (name, count), *_ = Counter(names).most_common(1)
    if count > 1:
        raise bad_row(source.uri, place, f"{count} columns are named {name!r:.80}", "rename or remove all but one")
    return names


CSV = FileType("CSV", (".csv",), partial(read, ","))
TSV = FileType("TSV", (".tsv", ".tab"), partial(read, "\t"))
