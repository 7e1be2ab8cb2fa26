"""{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], "tools": […], "system": "…"}"""

from __future__ import annotations

from typing import Any

from tunesmith_api.training import RowFormat
from tunesmith_runtime import messages as chat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.records import Conversation
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import text_of


def read(row: dict[str, Any]) -> Conversation | DropReason:
    """The conversation up to the last answer that is learned."""
    messages = chat.conversation(row["messages"], "messages")
    return answered(row, messages, chat.weightless(row["messages"], "messages"))


def answered(
    row: dict[str, Any], messages: list[dict[str, Any]], context: frozenset[int] = frozenset(), learn_from: int = 0
) -> Conversation | DropReason:
    """The conversation of `messages` with the row's system prompt and tools, or the reason why nothing in it is learned.

    `context` has the indices of messages that are not learned; neither are messages before `learn_from`.
    """
    if system := text_of(row, "system", ""):
        if messages and messages[0]["role"] == "system":
            raise RowError("has 'system' and a first message of role system", "remove one of the two", "system")
        messages = [{"role": "system", "content": system}, *messages]
        context, learn_from = frozenset(index + 1 for index in context), learn_from and learn_from + 1
    whole = Conversation(messages, chat.tools(row.get("tools")), learn_from, context)
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        return DropReason.NO_ANSWER
    if answers[-1] < whole.first_question:
        return DropReason.NO_PROMPT
    if not whole.learned:
        return DropReason.NOT_LEARNED
    if any(_is_empty(messages[index]) for index in whole.learned):
        return DropReason.EMPTY_ANSWER
    end = whole.learned[-1] + 1
    return Conversation(messages[:end], whole.tools, learn_from, frozenset(index for index in context if index < end))


def _is_empty(message: dict[str, Any]) -> bool:
    return not message["content"].strip() and not message.get("tool_calls")


MESSAGES = Format(
    RowFormat.MESSAGES,
    records=frozenset({Conversation}),
    keys=("messages",),
    expected='{"messages": [{"role", "content"}]}',
    known=frozenset({"messages", "tools", "system"}),
    read=read,
    message_keys={"messages": chat.KNOWN | set(chat.WEIGHTS)},
)
