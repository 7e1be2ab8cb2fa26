"""{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}], "system": "…", "tools": […]}

The format of the ShareGPT collections, with the roles that LLaMA-Factory and Axolotl read. Turns of role and content, and
ms-swift's pairs {human, assistant}, are read under the same key. The key may also be `conversation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime import messages as chat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format, Turns
from tunesmith_runtime.data.formats.messages import CALLS, RESULTS, answered, as_messages, called, conversation
from tunesmith_runtime.data.records import Conversation
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, kind_of

ROLES: Mapping[str, str] = {
    **chat.ROLES,
    "human": "user",
    **dict.fromkeys(("gpt", "chatgpt", "model", "bot"), "assistant"),
    **dict.fromkeys(RESULTS, "tool"),
}
KEYS = ("conversations", "conversation")
PAIR = ("human", "assistant")
"""Keys of a turn that is a question with its answer."""


def read(row: dict[str, Any]) -> Conversation | DropReason:
    """The conversation, with its turns as messages."""
    key = next((key for key in KEYS if has(row, key)), KEYS[0])
    messages, weights = conversation(turns(row.get(key), key), key)
    return answered(row, messages, weights)


def turns(value: Any, key: str = KEYS[0]) -> list[dict[str, Any]]:
    """The turns of `conversations` with the keys of messages. Raises RowError that names the turn."""
    if not isinstance(value, list):
        raise RowError(f"'{key}' is {kind_of(value)}; expected a list of {{from, value}}")
    return [message for index, turn in enumerate(value) for message in _messages(turn, f"{key}[{index}]")]


def _messages(turn: Any, place: str) -> list[dict[str, Any]]:
    """The messages of a turn: two of a pair {human, assistant}."""
    if isinstance(turn, dict) and has(turn, *PAIR) and not has(turn, "from"):
        others = {key: value for key, value in turn.items() if key not in PAIR}
        asked, answer = (chat.text_at(turn[key], f"{place}.{key}") for key in PAIR)
        return [{"role": "user", "content": asked}, {**others, "role": "assistant", "content": answer}]
    return [_message(turn, place)]


def _message(turn: Any, place: str) -> dict[str, Any]:
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
        return {**others, "role": "assistant", "tool_calls": called(value, f"{place}.value")}
    if not isinstance(value, str | list) and not (value is None and has(turn, "tool_calls")):
        raise chat.wrong(f"{place}.value", f"is {kind_of(value)}; expected a string")
    return {**others, "role": ROLES[source], "content": value}


TURNS = Turns(chat.KNOWN | {"from", "value", *chat.WEIGHTS}, lambda value: as_messages(turns(value)))

SHAREGPT = Format(
    RowFormat.SHAREGPT,
    records=frozenset({Conversation}),
    spellings=((KEYS[0],),),
    rare_spellings=((KEYS[1],),),
    expected='{"conversations": [{"from", "value"}]}',
    known=frozenset({*KEYS, "tools", "system"}),
    read=read,
    turns=dict.fromkeys(KEYS, TURNS),
)
