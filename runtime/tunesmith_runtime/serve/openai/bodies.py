"""The JSON body of a request, read within bounds: what it may cost is known before it is parsed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from starlette.requests import ClientDisconnect, Request

from tunesmith_runtime.serve.openai.errors import ApiError, invalid

MAX_BODY_BYTES = 32 << 20
MAX_VALUES = 2 << 20
"""Values in a body: a prompt of the longest context in tokens has half of them."""
MAX_DEPTH = 64
MAX_KEYS = 2048
"""Keys of one object."""
MAX_DIGITS = 20
"""Digits of an integer: those of 64 bits, and a sign."""


async def read_body(request: Request) -> bytes:
    """The bytes of the body. Raises ApiError (413) as soon as there are too many, whether or not their number is declared."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < MAX_DIGITS and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    raw = bytearray()
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > MAX_BODY_BYTES:
                raise _too_large()
    except ClientDisconnect as error:
        raise invalid("The body ended before it was complete.") from error
    return bytes(raw)


def decoded(raw: bytes) -> Any:
    """What a body says: JSON in UTF-8, whatever its Content-Type.

    Raises ApiError for what is no JSON of RFC 8259, for keys that are given twice, for text that is not Unicode, and beyond
    the bounds above.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_VALUES:
        raise invalid(f"The body has more than {MAX_VALUES} values.")
    try:
        body = json.loads(
            raw.decode(), object_pairs_hook=_object, parse_constant=_no_number, parse_int=_integer, parse_float=_float
        )
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise invalid(f"We could not parse the JSON body of your request: {error}.") from error
    escapes = b"\\ud" in raw or b"\\uD" in raw  # the only way to write a surrogate
    _check(body, str | dict | list if escapes else dict | list)
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise ValueError(f"an object has more than {MAX_KEYS} keys")
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)[:80]!a} is given twice")
    return made


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is not a number of JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    if abs(number := float(digits)) == float("inf"):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _check(body: Any, kinds: Any) -> None:
    """Look at the depth of what is nested, and where `kinds` has str at strings."""
    for where, value in _nested(body, kinds):
        if len(where) >= MAX_DEPTH:
            raise _too_deep()
        if isinstance(value, str) and not _is_unicode(value):
            param = ".".join(map(str, where)).encode("ascii", "backslashreplace").decode()[:80] or None
            place = f" for '{param}'" if param else ""
            raise invalid(f"Invalid value{place}: half of a UTF-16 surrogate pair is no text.", param, "invalid_value")


def _nested(body: Any, kinds: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Values of some kinds in a body, and keys of objects, with where they are."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), body)]
    while waiting:
        where, value = waiting.pop()
        yield where, value
        if isinstance(value, dict):
            waiting += [(where, key) for key in value]
            waiting += [((*where, key), inner) for key, inner in value.items() if isinstance(inner, kinds)]
        elif isinstance(value, list):
            waiting += [((*where, at), inner) for at, inner in enumerate(value) if isinstance(inner, kinds)]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_large() -> ApiError:
    return ApiError(413, f"The body is too large: at most {MAX_BODY_BYTES} bytes are taken.")


def _too_deep() -> ApiError:
    return invalid(f"The body is nested more than {MAX_DEPTH} levels deep.")
