"""Objects as JSON text: a fifth of the memory of the dicts, and no less to go by."""

from __future__ import annotations

import json

import orjson

from tunesmith_operator.plan.types import Raw


def pack(thing: Raw) -> bytes:
    """The text of `thing`, without what only server-side apply goes by, which is a third of an object."""
    metadata = {name: value for name, value in thing["metadata"].items() if name != "managedFields"}
    return encode({**thing, "metadata": metadata})


def unpack(text: bytes) -> Raw:
    """What was packed."""
    thing: Raw = orjson.loads(text)
    return thing


def encode(data: object) -> bytes:
    """JSON of what the API server has sent; floats below 1e21 come from there as digits, which kopf reads as large integers."""
    try:
        return orjson.dumps(data)
    except TypeError:
        return json.dumps(data).encode()
