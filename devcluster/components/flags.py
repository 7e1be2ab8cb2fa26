"""Command lines from tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Value = str | int | bool | Path


def flags(program: str, options: Mapping[str, Value]) -> tuple[str, ...]:
    """`--name=value` for each option, with booleans in lower case for Go's flag parser."""
    return (program, *(f"--{name}={_text(value)}" for name, value in options.items()))


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
