"""The lines of JSON between a training, the server of a reward's code and the process that runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

FUNCTION = "reward"
"""Function of the code that returns the rewards."""
MOST_BYTES = 16 << 20
"""Size of an answer at most."""
GRACE_SECONDS = 5.0
"""Time beyond that of a call, after which code that does not stop by itself is ended."""


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a message as a line."""
    return json.dumps(message).encode() + b"\n"


def error(kind: str, message: str, line: int | None = None) -> dict[str, Any]:
    """Return the answer that names why there are no rewards. Kinds: load, exception, value, memory, timeout, ended."""
    return {"error": {"kind": kind, "message": message, "line": line}}
