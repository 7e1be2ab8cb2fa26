"""Reads files of JSON lines in bounded memory. Errors name file and line.

JSON is read as in RFC 8259. Content on which readers disagree is refused: NaN and Infinity, duplicate keys, and lone
surrogates.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import kind_of
from tunesmith_runtime.errors import RunFailure

MAX_LINE_BYTES = 64 << 20
MAX_DEPTH = 100
MAX_DIGITS = 1000
MAX_SENTENCE = 1000

SURROGATE = re.compile(r"[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_TO_LINES = "write one object on a line, as `jq -c '.[]' FILE` does for an array and `jq -c . FILE` for objects"


def read_lines(path: Path, uri: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, row) for each line that is not blank.

    Raises RunFailure (BadRow) with file and line for a line that is not a JSON object in UTF-8.
    """
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
            if not line.isspace() and (row := _row(line, uri, number)) is not None:
                yield number, row


def bad_row(uri: str, line: int, sentence: str, hint: str | None = None) -> RunFailure:
    """The failure of a row. The message begins with file name and line."""
    readable = sentence[:MAX_SENTENCE].encode("utf-8", "backslashreplace").decode()
    return RunFailure(FailureClass.BAD_ROW, f"{Path(uri).name} line {line}: {readable} ({uri})", hint)


def parse(text: str) -> Any:
    """Parse the JSON value in `text`. Raises RowError with the column of a syntax error, or the content that is refused."""
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_number
        )
    except json.JSONDecodeError as error:
        raise RowError(f"column {error.pos + 1} is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise RowError(_TOO_DEEP) from error
    if text.count("[") + text.count("{") > MAX_DEPTH and any(len(path) > MAX_DEPTH for path, _ in walk(value)):
        raise RowError(_TOO_DEEP)
    if _ESCAPED_SURROGATE.search(text) and (place := surrogate_in(value)) is not None:
        raise RowError(f"{place or 'the text'} has half of a UTF-16 pair (a lone surrogate), which no text can hold")
    return value


def walk(value: Any) -> Iterator[tuple[list[str | int], Any]]:
    """Yield every value and every key in JSON data with its path. The path is a list that changes during the walk.

    Memory grows with the depth only: a line may hold millions of values.
    """
    path: list[str | int] = []
    yield path, value
    levels = [_entries(value)]
    while levels:
        for key, found in levels[-1]:
            path.append(key)
            yield path, found
            yield path, key
            if isinstance(found, dict | list):
                levels.append(_entries(found))
                break
            path.pop()
        else:
            levels.pop()
            del path[-1:]


def _entries(value: Any) -> Iterator[tuple[str | int, Any]]:
    """The entries of an object or a list with their keys or indices; none for other values."""
    return iter(value.items()) if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else iter(())


def surrogate_in(value: Any) -> str | None:
    """The path of a string with a lone surrogate; None if there is none."""
    found = (path for path, found in walk(value) if isinstance(found, str) and SURROGATE.search(found))
    return next((_place(path) for path in found), None)


def _place(path: list[str | int]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part:.40}" for part in path)
    return "".join(parts).removeprefix(".")


_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"


def _row(line: bytes, uri: str, number: int) -> dict[str, Any] | None:
    """The object on a line; None if the line has only white space or a byte order mark."""
    if len(line) > MAX_LINE_BYTES:
        raise bad_row(uri, number, f"is longer than {MAX_LINE_BYTES >> 20} MiB; expected JSON lines", _TO_LINES)
    if number == 1 and line.startswith(_UTF_16):
        raise bad_row(uri, number, "the file is UTF-16; expected JSON lines in UTF-8", "save the file in UTF-8")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad_row(uri, number, f"byte {error.start + 1} is not UTF-8; expected JSON lines in UTF-8") from error
    if not text.strip():
        return None
    try:
        row = parse(text)
    except RowError as error:
        hint = _TO_LINES if text.strip() in ("[", "{") or text.lstrip().startswith("[") else None
        raise bad_row(uri, number, f"{error}; expected one JSON object on a line", hint) from error
    if not isinstance(row, dict):
        hint = _TO_LINES if isinstance(row, list) else None
        raise bad_row(uri, number, f"is {kind_of(row)}; expected one JSON object on a line", hint)
    return row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise RowError(f"an object has the key '{twice:.60}' twice")
    return made


def _constant(text: str) -> NoReturn:
    raise RowError(f"{text} is not JSON; write null or a number")


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise RowError(f"a number has {len(text)} digits; at most {MAX_DIGITS} are read")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise RowError(f"the number {text:.40} is too large")
    return number
