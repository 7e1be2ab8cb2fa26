"""{"text": "…"}: every token is learned. Also ms-swift's rows for pretraining, {"messages": [{"role": "assistant", "content": "…"}]}."""

from __future__ import annotations

from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.messages import TURNS, unscaled
from tunesmith_runtime.data.records import PlainText
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, text_of


def read(row: dict[str, Any]) -> PlainText | DropReason:
    """The text, unless it is empty."""
    if not has(row, "messages") or has(row, "text"):
        text = text_of(row, "text")
    else:
        messages, weights = unscaled(row["messages"], "messages")
        if weights:
            return DropReason.NOT_LEARNED
        text = _content(messages)
    return PlainText(text) if text.strip() else DropReason.EMPTY_ANSWER


def _content(messages: list[dict[str, Any]]) -> str:
    """The content of the only message. Raises RowError for a conversation, whose text a chat template would write."""
    if [message.keys() for message in messages] != [{"role", "content"}] or messages[0]["role"] != "assistant":
        roles = ", ".join(message["role"] for message in messages) or "none"
        raise RowError(
            f"'messages' has messages of the roles {roles}; expected one of role assistant with content alone, whose text is learned",
            'write the text as {"text": "…"}; conversations belong into a data set of their own, with format: messages and method sft',
            "messages",
        )
    return str(messages[0]["content"])


TEXT = Format(
    RowFormat.TEXT,
    records=frozenset({PlainText}),
    spellings=(("text",),),
    rare_spellings=(("messages",),),
    expected='{"text"} | {"messages": [{"role": "assistant", "content"}]}',
    known=frozenset({"text", "messages"}),
    read=read,
    turns={"messages": TURNS},
)
