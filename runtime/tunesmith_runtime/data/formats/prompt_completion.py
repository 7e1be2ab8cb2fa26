"""{"prompt": "…", "completion": "…"}: plain text, or lists of messages on both sides, as in TRL."""

from __future__ import annotations

from typing import Any

from tunesmith_runtime.data.formats.messages import answered, conversation
from tunesmith_runtime.data.records import Continuation, Conversation, DropReason, RowError, text_of

KEYS = ("prompt", "completion")
EXPECTED = '{"prompt", "completion"}'


def read(row: dict[str, Any]) -> Continuation | Conversation | DropReason:
    """The continuation; or, for lists of messages, the conversation that ends with the completion."""
    if isinstance(row.get("prompt"), list):
        return _conversation(row)
    prompt, completion = text_of(row, "prompt"), text_of(row, "completion")
    return Continuation(prompt, completion) if completion.strip() else DropReason.EMPTY_ANSWER


def _conversation(row: dict[str, Any]) -> Conversation | DropReason:
    completion = conversation(row, "completion")
    if [message["role"] for message in completion] != ["assistant"]:
        raise RowError("'completion' is not one message of role assistant; use the format messages for several turns")
    prompt = conversation(row, "prompt")
    return answered(prompt + completion, row.get("tools"), learn_from=len(prompt))
