"""{"text": "…"}: every token is learned."""

from __future__ import annotations

from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.records import PlainText
from tunesmith_runtime.data.row_fields import text_of


def read(row: dict[str, Any]) -> PlainText | DropReason:
    """The text, unless it is empty."""
    text = text_of(row, "text")
    return PlainText(text) if text.strip() else DropReason.EMPTY_ANSWER


TEXT = Format(
    RowFormat.TEXT,
    records=frozenset({PlainText}),
    spellings=(("text",),),
    expected='{"text"}',
    known=frozenset({"text"}),
    read=read,
)
