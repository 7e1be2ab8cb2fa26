"""The JSON body of a request, read within bounds that limit the cost of parsing."""

from __future__ import annotations

from typing import Any

from starlette.requests import ClientDisconnect, Request

from tunesmith_runtime.data.json_text import parse
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.serve.openai.errors import ApiError, invalid

MAX_BODY_BYTES = 32 << 20
LARGE_BODY_BYTES = 1 << 20
MAX_VALUES = 2 << 20
"""Maximum number of values in a body: twice the tokens of the longest context."""


async def read_body(request: Request) -> bytes:
    """Return the bytes of the body. Raises ApiError (413) as soon as the declared or the received size exceeds the limit."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) <= 20 and int(declared) > MAX_BODY_BYTES:
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


def decode_body(raw: bytes) -> Any:
    """Return the JSON value of a body in UTF-8, whatever its Content-Type, by the rules for rows of data.

    Raises ApiError for a body that is not JSON or has too many values.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_VALUES:
        raise invalid(f"The body has more than {MAX_VALUES} values.")
    try:
        return parse(raw.decode())
    except (RowError, UnicodeDecodeError) as error:
        raise invalid(f"We could not parse the JSON body of your request: {error}.") from error


def _too_large() -> ApiError:
    return ApiError(413, f"The body is too large: the limit is {MAX_BODY_BYTES} bytes.")
