"""{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], "tools": […]}"""

from __future__ import annotations

from typing import Any

from tunesmith_runtime.data.records import Conversation, DropReason, RowError, kind_of

KEYS = ("messages",)
EXPECTED = '{"messages": [{"role", "content"}]}'
ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


def read(row: dict[str, Any]) -> Conversation | DropReason:
    """The conversation up to its last answer. What comes after that has no answer to learn."""
    messages = conversation(row, "messages")
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    return answered(messages, row.get("tools"))


def conversation(row: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The checked messages at `key`; parts of text are joined, as every chat template takes a string.

    Raises RowError that names the message.
    """
    if key not in row:
        raise RowError(f"has no '{key}'; its keys are {', '.join(row) or 'none'}; expected {EXPECTED}")
    if not isinstance(row[key], list):
        raise RowError(f"'{key}' is {kind_of(row[key])}; expected a list of {{role, content}}")
    return [_message(f"{key}[{index}]", message) for index, message in enumerate(row[key])]


def answered(messages: list[dict[str, Any]], tools: Any, learn_from: int = 0) -> Conversation | DropReason:
    """A conversation, unless there is nothing in it to learn."""
    if tools is not None and not isinstance(tools, list):
        raise RowError(f"'tools' is {kind_of(tools)}; expected a list of function schemas")
    answers = [message for message in messages[learn_from:] if message["role"] == "assistant"]
    if not answers:
        return DropReason.NO_ANSWER
    if any(not message["content"].strip() and not message.get("tool_calls") for message in answers):
        return DropReason.EMPTY_ANSWER
    return Conversation(messages, tools, learn_from)


def _message(place: str, message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise RowError(f"{place} is {kind_of(message)}; expected {{role, content}}")
    if message.get("role") not in ROLES:
        raise RowError(f"{place} has role {message.get('role')!r}; expected one of {', '.join(sorted(ROLES))}")
    return {**message, "content": _content(place, message)}


def _content(place: str, message: dict[str, Any]) -> str:
    content = message.get("content")
    if content is None and (message.get("tool_calls") or "content" in message):
        return ""
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise RowError(
                    f'{place}.content has a part that is not {{"type": "text", "text": …}}; only text can be learned'
                )
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        what = kind_of(content) if "content" in message else "missing"
        raise RowError(f"{place}.content is {what}; expected a string")
    return content
