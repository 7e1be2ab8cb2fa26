"""Records, the typed content of rows whatever their format; and the reasons why a row is not used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tunesmith_runtime.errors import RunFailure


class RowError(ValueError):
    """A row or a message that does not follow its format. The sentence names the fault and what is expected.

    `hint` is what to write instead. `field` is the path in the row, such as `messages[0].content`.
    """

    def __init__(self, sentence: str, hint: str | None = None, field: str | None = None) -> None:
        super().__init__(sentence)
        self.hint = hint
        self.field = field


@contextmanager
def row_errors(what: str) -> Iterator[None]:
    """Within the block, turn an error of a template, a tokenizer or a library into a RowError.

    Errors of the machine, which do not depend on the row, pass unchanged.
    """
    try:
        yield
    except (RowError, RunFailure, MemoryError, OSError, ImportError):
        raise
    except BaseException as error:
        # tokenizers is written in Rust, and its panics do not derive from Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise RowError(f"{what}: {type(error).__name__}: {error}") from error


class DropReason(StrEnum):
    """Why a valid row is not trained on; counted in status.rows."""

    EMPTY_ANSWER = "EmptyAnswer"
    NO_ANSWER = "NoAnswer"
    NO_PROMPT = "NoPrompt"
    NOT_LEARNED = "NotLearned"
    TOO_LONG = "TooLong"
    ANSWER_CUT_OFF = "AnswerCutOff"


@dataclass(frozen=True)
class Conversation:
    """Messages in the form of chat templates, up to the last answer that is learned."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    learn_from: int = 0
    """Index from which answers are learned; earlier answers are context."""
    context: frozenset[int] = frozenset()
    """Indices of further answers that are context, because their weight is 0."""

    @property
    def first_question(self) -> int:
        """Index of the user's first message; the number of messages if there is none."""
        roles = [message["role"] for message in self.messages]
        return roles.index("user") if "user" in roles else len(roles)

    @property
    def learned(self) -> list[int]:
        """Indices of the answers that are learned. An answer before the first question is context."""
        first = max(self.first_question, self.learn_from)
        return [
            index
            for index, message in enumerate(self.messages)
            if index >= first and message["role"] == "assistant" and index not in self.context
        ]


@dataclass(frozen=True)
class Continuation:
    """A prompt and its completion as plain text, without a chat template."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class PlainText:
    """Text of which every token is learned."""

    text: str


Record = Conversation | Continuation | PlainText


def text_of(row: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """The string at `key`, or `default`. Raises RowError if the key is missing without a default, or is not a string."""
    value = row.get(key, default)
    if value is None and default is not None:
        return default
    if key not in row and default is None:
        raise RowError(f"has no '{key}'; its keys are {keys_of(row)}")
    if not isinstance(value, str):
        raise RowError(f"'{key}' is {kind_of(value)}; expected a string", field=key)
    return value


def has(row: Mapping[str, Any], *keys: str) -> bool:
    """Whether the row has every key, with a value other than null."""
    return all(row.get(key) is not None for key in keys)


def keys_of(row: Mapping[str, Any], most: int = 20) -> str:
    """The first `most` keys of a row for a message, each cut to a readable length."""
    shown = [f"{key:.60}" + (" (null)" if value is None else "") for key, value in list(row.items())[:most]]
    more = [f"and {len(row) - most} more"] if len(row) > most else []
    return ", ".join(shown + more) or "none"


def kind_of(value: Any) -> str:
    """The JSON name of a value's type, for messages."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "null")
