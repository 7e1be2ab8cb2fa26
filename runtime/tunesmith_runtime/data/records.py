"""What a row says, whatever its format: a conversation, or a text to continue; and why a row is not used."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class RowError(ValueError):
    """A row that is not what its format asks for. The sentence says what is wrong and what is expected."""


class DropReason(StrEnum):
    """Why a sound row is not trained on; counted in status.rows."""

    EMPTY_ANSWER = "EmptyAnswer"
    NO_ANSWER = "NoAnswer"
    TOO_LONG = "TooLong"
    ANSWER_CUT_OFF = "AnswerCutOff"


@dataclass(frozen=True)
class Conversation:
    """Messages as the chat template takes them, ending with the assistant's last answer."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    learn_from: int = 0
    """Index of the first message whose answer is learned; answers before it are context."""


@dataclass(frozen=True)
class Continuation:
    """Plain text and how it goes on; no chat template is involved."""

    prompt: str
    completion: str


Record = Conversation | Continuation


def text_of(row: dict[str, Any], key: str, default: str | None = None) -> str:
    """The string at `key`.

    Raises RowError where it is missing (and there is no default) or is no string.
    """
    value = row.get(key, default)
    if value is None and default is not None:
        return default
    if key not in row and default is None:
        raise RowError(f"has no '{key}'; its keys are {', '.join(row) or 'none'}")
    if not isinstance(value, str):
        raise RowError(f"'{key}' is {kind_of(value)}; expected a string")
    return value


def kind_of(value: Any) -> str:
    """The JSON name of a value's type, for messages."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "null")
