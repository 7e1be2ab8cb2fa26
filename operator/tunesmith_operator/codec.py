"""Cached objects as JSON text, which takes a fifth of the memory of dicts."""

from __future__ import annotations

import json

import orjson

from tunesmith_operator.plan.types import Raw


def pack(obj: Raw) -> bytes:
    """The text of `obj` without managedFields, which are a third of an object."""
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    return encode({**obj, "metadata": metadata})


def unpack(text: bytes) -> Raw:
    """The object of a text that `pack` returned."""
    obj: Raw = orjson.loads(text)
    return obj


def encode(data: object) -> bytes:
    """JSON of data from the API server. kopf parses large numbers as integers beyond 64 bits, which orjson rejects."""
    try:
        return orjson.dumps(data)
    except TypeError:
        return json.dumps(data).encode()
