"""{"prompt": "…", "completion": "…"}: plain text, or lists of messages on both sides, as in TRL."""

from __future__ import annotations

from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime import messages as chat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.messages import TURNS, answered, conversation, unscaled
from tunesmith_runtime.data.records import Continuation, Conversation
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import text_of


def read(row: dict[str, Any]) -> Continuation | Conversation | DropReason:
    """The continuation; for lists of messages, the conversation that ends with the completion."""
    if isinstance(row.get("prompt"), list):
        return _conversation(row)
    prompt, completion = text_of(row, "prompt"), text_of(row, "completion")
    for key in ("system", "tools"):
        if chat.asks(row.get(key)):
            raise RowError(
                f"has '{key}', which needs a chat template, and its prompt is plain text",
                "name the keys instruction and output instead of prompt and completion",
                key,
            )
    return Continuation(prompt, completion) if completion.strip() else DropReason.EMPTY_ANSWER


def _conversation(row: dict[str, Any]) -> Conversation | DropReason:
    completion, of_completion = conversation(row.get("completion"), "completion")
    if [message["role"] for message in completion] != ["assistant"]:
        raise RowError(
            "'completion' is not a single message of role assistant", "use the format messages for several turns"
        )
    prompt, weights = unscaled(row["prompt"], "prompt")
    if 0 in of_completion.values():
        return DropReason.NOT_LEARNED
    weights = {**weights, **{len(prompt): weight for weight in of_completion.values()}}
    return answered(row, prompt + completion, weights, learn_from=len(prompt))


PROMPT_COMPLETION = Format(
    RowFormat.PROMPT_COMPLETION,
    records=frozenset({Continuation, Conversation}),
    spellings=(("prompt", "completion"),),
    expected='{"prompt", "completion"}',
    known=frozenset({"prompt", "completion", "tools", "system"}),
    read=read,
    turns={"prompt": TURNS, "completion": TURNS},
)
