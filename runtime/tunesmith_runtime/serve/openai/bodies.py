"""The JSON body of a request, read within bounds: what it may cost is known before it is parsed."""

from __future__ import annotations

from typing import Any

from starlette.requests import ClientDisconnect, Request

from tunesmith_runtime.data.lines import parse
from tunesmith_runtime.data.records import RowError
from tunesmith_runtime.serve.openai.errors import ApiError, invalid

MAX_BODY_BYTES = 32 << 20
LARGE_BODY_BYTES = 1 << 20
MAX_VALUES = 2 << 20
"""Values in a body: a prompt of the longest context in tokens has half of them."""


async def read_body(request: Request) -> bytes:
    """The bytes of the body. Raises ApiError (413) as soon as there are too many, whether or not their number is declared."""
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


def decoded(raw: bytes) -> Any:
    """Return the JSON value of a body in UTF-8, whatever its Content-Type, by the rules for rows of data.

    Raises ApiError for a body that is not JSON, and for more values than a request needs.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_VALUES:
        raise invalid(f"The body has more than {MAX_VALUES} values.")
    try:
        return parse(raw.decode())
    except (RowError, UnicodeDecodeError) as error:
        raise invalid(f"We could not parse the JSON body of your request: {error}.") from error


def _too_large() -> ApiError:
    return ApiError(413, f"The body is too large: at most {MAX_BODY_BYTES} bytes are taken.")
