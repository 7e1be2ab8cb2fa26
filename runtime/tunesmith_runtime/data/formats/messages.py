"""{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], "tools": […], "system": "…"}

Besides the messages of OpenAI, Anthropic's blocks and the roles tool_call and tool_response of ms-swift are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime import messages as chat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats import anthropic
from tunesmith_runtime.data.formats.format import Format, Turns
from tunesmith_runtime.data.json_text import parse
from tunesmith_runtime.data.records import Conversation
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import kind_of, text_of

CALLS = ("function_call", "tool_call")
"""Roles whose content is the JSON text of a call {name, arguments}, or of a list of calls."""
RESULTS = ("observation", "tool_response", "function_response")
"""Further names of the role tool."""

UNWEIGHTED: Mapping[int, float] = {}
"""The weights of messages that all have weight 1."""

_REWRITTEN = frozenset((*CALLS, *RESULTS))


def read(row: dict[str, Any]) -> Conversation | DropReason:
    """The conversation up to the last answer that is learned."""
    messages, weights = conversation(row["messages"], "messages")
    return answered(row, messages, weights)


def conversation(value: Any, place: str) -> tuple[list[dict[str, Any]], Mapping[int, float]]:
    """The messages at `place` of a row in the form of templates, and the weights other than 1 by the index of the message.

    Raises RowError that names the message and the field.
    """
    if not isinstance(value, list):
        raise chat.not_a_list(value, place)
    messages: list[dict[str, Any]] = []
    weights: dict[int, float] = {}
    for index, each in enumerate(value):
        where = f"{place}[{index}]"
        for turn in rewritten(each, where) if _is_rewritten(each) else (each,):
            messages.append(chat.message(turn, where))
            if (weight := chat.weight_of(turn, where)) != 1:
                weights[len(messages) - 1] = weight
    return messages, weights


def unscaled(value: Any, place: str) -> tuple[list[dict[str, Any]], Mapping[int, float]]:
    """The same where only the weights 0 and 1 have a meaning. Raises RowError also for others."""
    messages, weights = conversation(value, place)
    if any(weights.values()):
        raise scaled(place)
    return messages, weights


def scaled(place: str) -> RowError:
    """The error for a weight other than 0 and 1, which only method sft supports."""
    return RowError(
        f"'{place}' has a message of a weight other than 0 and 1, which only answers to learn with method sft have",
        "write weight 0 or 1, or remove the key",
        place,
    )


def _is_rewritten(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    role = message.get("role")
    return (isinstance(role, str) and role in _REWRITTEN) or anthropic.has_blocks(message)


def rewritten(message: dict[str, Any], place: str) -> list[dict[str, Any]]:
    """The messages of OpenAI's form that a message stands for. Raises RowError."""
    role = message["role"] if isinstance(message.get("role"), str) else None
    if role in CALLS:
        others = {key: value for key, value in message.items() if key not in ("role", "content")}
        return [{**others, "role": "assistant", "tool_calls": called(message.get("content"), f"{place}.content")}]
    if role in RESULTS:
        return [{**message, "role": "tool"}]
    return anthropic.expand(message, place)


def called(value: Any, place: str) -> list[Any]:
    """The calls in JSON text, or in the value of such text. Raises RowError."""
    try:
        found = parse(value) if isinstance(value, str) else value
    except RowError as error:
        raise chat.wrong(place, f"is not JSON: {error}; expected {{name, arguments}}") from error
    if not isinstance(found, dict | list) or not found:
        raise chat.wrong(place, f"is {kind_of(value)}; expected the JSON of {{name, arguments}}")
    return [_exact(call) for call in (found if isinstance(found, list) else [found])]


def _exact(call: Any) -> Any:
    """The call with its arguments as text, which keeps their nulls: in JSON text the user wrote them."""
    if isinstance(call, dict) and isinstance(call.get("arguments"), dict):
        return {**call, "arguments": json.dumps(call["arguments"])}
    return call


def as_messages(value: Any) -> Any:
    """A list of messages with the keys of OpenAI's form. `value` has passed `conversation`."""
    if not isinstance(value, list) or not any(map(_is_rewritten, value)):
        return value
    return [turn for each in value for turn in (rewritten(each, "") if _is_rewritten(each) else (each,))]


def with_system(row: Mapping[str, Any], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages after the row's system prompt. Raises RowError where both have one."""
    system = text_of(row, "system", "")
    if not system:
        return messages
    if messages and messages[0]["role"] == "system":
        raise RowError("has 'system' and a first message of role system", "remove one of the two", "system")
    return [{"role": "system", "content": system}, *messages]


def answered(
    row: Mapping[str, Any],
    messages: list[dict[str, Any]],
    weights: Mapping[int, float] = UNWEIGHTED,
    learn_from: int = 0,
) -> Conversation | DropReason:
    """The conversation of `messages` with the row's system prompt and tools, or the reason why nothing in it is learned.

    `weights` are those of `conversation`. Messages before `learn_from` are context.
    """
    given, messages = messages, with_system(row, messages)
    if messages is not given:
        weights, learn_from = {index + 1: weight for index, weight in weights.items()}, learn_from and learn_from + 1
    whole = Conversation(messages, chat.tools(anthropic.tools(row.get("tools"))), learn_from, weights)
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
    kept = {index: weight for index, weight in weights.items() if index < end}
    return Conversation(messages[:end], whole.tools, learn_from, kept)


def _is_empty(message: dict[str, Any]) -> bool:
    return not message["content"].strip() and not message.get("tool_calls")


TURNS = Turns(chat.KNOWN | set(chat.WEIGHTS), as_messages)

MESSAGES = Format(
    RowFormat.MESSAGES,
    records=frozenset({Conversation}),
    spellings=(("messages",),),
    expected='{"messages": [{"role", "content"}]}',
    known=frozenset({"messages", "tools", "system"}),
    read=read,
    turns={"messages": TURNS},
)
