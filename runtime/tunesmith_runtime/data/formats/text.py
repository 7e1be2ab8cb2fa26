"""{"text": "…"}: all of it is learned."""

from __future__ import annotations

from typing import Any

from tunesmith_runtime.data.records import Continuation, DropReason, text_of

KEYS = ("text",)
EXPECTED = '{"text"}'
KNOWN = frozenset({"text"})
LISTS: dict[str, frozenset[str]] = {}


def read(row: dict[str, Any]) -> Continuation | DropReason:
    """The continuation of nothing."""
    text = text_of(row, "text")
    return Continuation("", text) if text.strip() else DropReason.EMPTY_ANSWER
