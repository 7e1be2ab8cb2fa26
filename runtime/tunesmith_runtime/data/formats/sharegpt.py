"""{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}], "system": "…", "tools": […]}

The format of the ShareGPT collections, with the roles that LLaMA-Factory and Axolotl read. Turns of role and content are
read under the same key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunesmith_api.training import RowFormat
from tunesmith_runtime import messages as chat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.messages import answered
from tunesmith_runtime.data.json_text import parse
from tunesmith_runtime.data.records import Conversation
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, kind_of

ROLES: Mapping[str, str] = {
    **chat.ROLES,
    "human": "user",
    **dict.fromkeys(("gpt", "chatgpt", "model", "bot"), "assistant"),
    **dict.fromkeys(("observation", "tool_response", "function_response"), "tool"),
}
CALLS = ("function_call", "tool_call")
"""Roles whose value is the JSON text of a call {name, arguments}, or of a list of calls."""


def read(row: dict[str, Any]) -> Conversation | DropReason:
    """The conversation, with its turns as messages."""
    read_turns = turns(row.get("conversations"))
    messages = chat.conversation(read_turns, "conversations")
    return answered(row, messages, chat.weightless(read_turns, "conversations"))


def turns(value: Any) -> list[dict[str, Any]]:
    """The turns of `conversations` with the keys of messages. Raises RowError that names the turn."""
    if not isinstance(value, list):
        raise RowError(f"'conversations' is {kind_of(value)}; expected a list of {{from, value}}")
    return [_turn(turn, f"conversations[{index}]") for index, turn in enumerate(value)]


def _turn(turn: Any, place: str) -> dict[str, Any]:
    """A turn with the keys of a message."""
    if not isinstance(turn, dict):
        raise chat.wrong(place, f"is {kind_of(turn)}; expected {{from, value}}")
    if not has(turn, "from"):
        if has(turn, "role", "value"):
            raise chat.wrong(f"{place}.value", "has no from beside it", "write from and value, or role and content")
        return turn
    source, value = turn["from"], turn.get("value")
    for key in ("role", "content", *(("tool_calls",) if source in CALLS else ())):
        if has(turn, key) and turn[key] != []:
            raise chat.wrong(f"{place}.{key}", "repeats from and value", "remove the key")
    if not isinstance(source, str) or source not in {*ROLES, *CALLS}:
        known = ", ".join(sorted({*ROLES, *CALLS}))
        raise chat.wrong(f"{place}.from", f"is {source!r:.80}; expected one of {known}")
    others = {key: entry for key, entry in turn.items() if key not in ("from", "value")}
    if source in CALLS:
        return {**others, "role": "assistant", "tool_calls": _called(value, f"{place}.value")}
    if not isinstance(value, str | list) and not (value is None and has(turn, "tool_calls")):
        raise chat.wrong(f"{place}.value", f"is {kind_of(value)}; expected a string")
    return {**others, "role": ROLES[source], "content": value}


def _called(value: Any, place: str) -> list[Any]:
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


SHAREGPT = Format(
    RowFormat.SHAREGPT,
    records=frozenset({Conversation}),
    keys=("conversations",),
    expected='{"conversations": [{"from", "value"}]}',
    known=frozenset({"conversations", "tools", "system"}),
    read=read,
    message_keys={"conversations": chat.KNOWN | {"from", "value", *chat.WEIGHTS}},
    as_messages=turns,
)
