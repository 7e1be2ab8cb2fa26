"""JSON as in RFC 8259. Content on which readers disagree is refused: NaN and Infinity, duplicate keys, lone surrogates."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

from tunesmith_runtime.data.row_error import RowError

MAX_DEPTH = 100
MAX_DIGITS = 1000

SURROGATE = re.compile(r"[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse(text: str) -> Any:
    """Parse the JSON value in `text`. Raises RowError with the column of a syntax error, or the content that is refused."""
    if text.startswith("\ufeff"):
        raise RowError("column 1 is not JSON: a byte order mark (BOM)")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise RowError(f"column {error.pos + 1} is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise RowError(_TOO_DEEP) from error
    _check(value, text, 0, len(text))
    return value


def parse_at(text: str, position: int) -> tuple[Any, int]:
    """Parse the JSON value that begins at `position`; return it and the position behind it.

    Raises json.JSONDecodeError with the position of a syntax error, and RowError for content that is refused.
    """
    try:
        value, end = _DECODER.raw_decode(text, position)
    except RecursionError as error:
        raise RowError(_TOO_DEEP) from error
    _check(value, text, position, end)
    return value, end


def walk(value: Any) -> Iterator[tuple[list[str | int], Any]]:
    """Yield every value and every key in JSON data with its path. The path is a list that changes during the walk.

    Memory grows with the depth only: a row may hold millions of values.
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


def surrogate_in(value: Any) -> str | None:
    """The path of a string with a lone surrogate; None if there is none."""
    found = (path for path, found in walk(value) if isinstance(found, str) and SURROGATE.search(found))
    return next((_place(path) for path in found), None)


def _entries(value: Any) -> Iterator[tuple[str | int, Any]]:
    """The entries of an object or a list with their keys or indices; none for other values."""
    return iter(value.items()) if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else iter(())


def _place(path: list[str | int]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part:.40}" for part in path)
    return "".join(parts).removeprefix(".")


_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"


def _check(value: Any, text: str, start: int, end: int) -> None:
    """Raise RowError for a value, parsed from that part of `text`, that is nested too deep or has a lone surrogate."""
    brackets = text.count("[", start, end) + text.count("{", start, end)
    if brackets > MAX_DEPTH and any(len(path) > MAX_DEPTH for path, _ in walk(value)):
        raise RowError(_TOO_DEEP)
    if _ESCAPED_SURROGATE.search(text, start, end) and (place := surrogate_in(value)) is not None:
        raise RowError(f"{place or 'the text'} has half of a UTF-16 pair (a lone surrogate), which no text can hold")


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


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_number
)
"""One decoder for all rows: json.loads with hooks makes a decoder for each call."""
