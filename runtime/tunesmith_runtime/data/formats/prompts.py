"""Prompts without an answer, in the keys of the formats for prompt and answer."""

from __future__ import annotations

from typing import Any

from tunesmith_runtime.data.formats.alpaca import history
from tunesmith_runtime.data.formats.messages import TURNS as MESSAGE_TURNS
from tunesmith_runtime.data.formats.messages import unscaled, with_system
from tunesmith_runtime.data.formats.sharegpt import KEYS as CONVERSATIONS
from tunesmith_runtime.data.formats.sharegpt import TURNS as CONVERSATION_TURNS
from tunesmith_runtime.data.formats.sharegpt import turns
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, kind_of, text_of

QUESTIONS = ("query", "question", "instruction")
KEYS = ("prompt", "messages", *CONVERSATIONS, *QUESTIONS)
"""Keys of which a row has one, in the order in which they are looked for."""
READ = frozenset({*KEYS, "input", "context", "history", "system", "tools"})
"""Keys that belong to the prompt."""
TURNS = {"prompt": MESSAGE_TURNS, "messages": MESSAGE_TURNS, **dict.fromkeys(CONVERSATIONS, CONVERSATION_TURNS)}
"""Those of KEYS that hold lists of messages."""

Messages = list[dict[str, Any]]


def find(row: dict[str, Any]) -> str | None:
    """The key of the row's prompt."""
    return next((key for key in KEYS if has(row, key)), None)


def read(row: dict[str, Any], key: str) -> str | Messages:
    """The prompt at `key`: plain text, or messages with the row's system prompt for the chat template. Raises RowError."""
    value = row[key]
    if key == "prompt" and isinstance(value, str):
        if has(row, "system") and row["system"]:
            raise RowError(
                "has 'system', which needs a chat template, and its prompt is plain text",
                "name the key instruction instead of prompt",
                "system",
            )
        return value
    if key in QUESTIONS:
        asked = [part for part in (text_of(row, name, "") for name in (key, *_further(key))) if part]
        messages = [*history(row), {"role": "user", "content": "\n".join(asked)}]
    elif key in CONVERSATIONS:
        messages, _ = unscaled(turns(value, key), key)
    elif isinstance(value, list):
        messages, _ = unscaled(value, key)
    else:
        expected = "a string or a list of messages" if key == "prompt" else "a list of messages"
        raise RowError(f"'{key}' is {kind_of(value)}; expected {expected}", field=key)
    return with_system(row, messages)


def _further(key: str) -> tuple[str, ...]:
    return ("input", "context") if key == "instruction" else ()
