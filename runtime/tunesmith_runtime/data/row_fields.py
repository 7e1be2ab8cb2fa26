"""Fields of a row as read from a file, and how messages show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith_runtime.data.row_error import RowError


def text_of(row: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """The string at `key`, or `default`. Raises RowError if the key is missing without a default, or is not a string."""
    value = row.get(key, default)
    if value is None and default is not None:
        return default
    if key not in row and default is None:
        raise RowError(f"has no '{key}'; its keys are {keys_of(row)}")
    if not isinstance(value, str):
        raise RowError(f"'{key}' is {kind_of(value)}; expected a string", field=key)
    return value


def has(row: Mapping[str, Any], *keys: str) -> bool:
    """Whether the row has every key, with a value other than null."""
    return all(row.get(key) is not None for key in keys)


def keys_of(row: Mapping[str, Any], most: int = 20) -> str:
    """The first `most` keys of a row for a message, each cut to a readable length."""
    shown = [f"{key:.60}" + (" (null)" if value is None else "") for key, value in list(row.items())[:most]]
    more = [f"and {len(row) - most} more"] if len(row) > most else []
    return ", ".join(shown + more) or "none"


def kind_of(value: Any) -> str:
    """The JSON name of a value's type, for messages."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "null")
