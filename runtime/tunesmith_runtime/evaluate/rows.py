"""From users' rows to the rows that EvalScope reads. Pure functions that raise RowError."""

from __future__ import annotations

import string
from collections.abc import Callable
from itertools import combinations
from typing import Any

from tunesmith_api.evaljob import BenchmarkDataset, BenchmarkType
from tunesmith_runtime import messages as chat
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.template import template_format
from tunesmith_runtime.data.records import Continuation, Conversation, MultimodalConversation, Record
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, kind_of, text_of
from tunesmith_runtime.messages import THOUGHTS, asks

Row = dict[str, Any]

LETTERS = "ABCDEFGHIJ"
ANSWERED: frozenset[type[Record]] = frozenset({Conversation, Continuation})
"""Records with an expected answer: the last one that is learned."""
PLACE = "benchmarks[].dataset"
CHOICE = frozenset({"question", "answer", *LETTERS})


def convert_question(row: Row, row_format: Format | None = None) -> Row:
    """Convert a row of type qa to {messages, response}: the question and the reference.

    The row is read as a FineTuneJob reads it, in `row_format` or in the format detected from its keys.
    """
    row_format = row_format or detect(row)
    refuse_tools(row, row_format)
    record = answered(formats.read(row, row_format))
    if isinstance(record, Continuation):
        return {"messages": [_user(record.prompt)], "response": record.completion}
    assert isinstance(record, Conversation), f"{type(record).__name__} is not in ANSWERED"
    asked, answer = question_and_answer(record)
    if asked[-1]["role"] == "user":
        _require_question(asked[-1]["content"])
    return {"messages": asked, "response": answer["content"]}


def refuse_tools(row: Row, row_format: Format) -> None:
    """Raise RowError for a row that offers tools."""
    for key in row_format.refused.keys() & {"tools", "functions"}:
        if asks(row.get(key)) and chat.tools(row[key], key):
            raise RowError(f"has '{key}', which evaluations do not support", "remove the rows that need tools", key)


def answered(record: Record | DropReason) -> Record:
    """Return a record. Raises RowError for a row without an answer to compare with."""
    if record is DropReason.NO_PROMPT:
        raise RowError("has no question: no user message comes before the last answer")
    if record is DropReason.NOT_LEARNED:
        raise RowError("has no answer to compare with: all have weight 0")
    if isinstance(record, DropReason):
        raise RowError("has no answer to compare with: the last message or the response is missing or empty")
    return record


def question_and_answer(record: Conversation) -> tuple[list[Row], Row]:
    """Return the messages that are sent, and the last answer. Raises RowError."""
    *asked, answer = record.messages
    if asked[-1]["role"] not in ("user", "tool"):
        raise RowError("has no question: the message before the last answer is not a user message")
    if answer.get("tool_calls"):
        raise RowError("has no answer to compare with: the last message of the assistant calls a tool")
    return [_check_sendable(message, f"messages[{index}]") for index, message in enumerate(asked)], answer


def detect(row: Row) -> Format:
    """The format of a row by its keys. Raises RowError unless it has an expected answer."""
    found = formats.detect(row, ANSWERED, f"{PLACE}.columns")
    if found.records <= ANSWERED:
        return found
    known = ", ".join(formats.yielding(ANSWERED))
    hint = f"write the rows as {known}"
    if MultimodalConversation in found.records:
        hint = f"set {PLACE}.type to vqa, caption, ocr or grounding, or {hint}"
    raise RowError(f"is of format {found.name}, which has no single expected answer", hint)


def convert_choice(row: Row) -> Row:
    """Convert a row of type multipleChoice to {question, A, B, ..., answer}. Choices may be numbers."""
    for key in ("system", "system_prompt", "history", "tools", "functions"):
        if asks(row.get(key)):
            hint = "write its content into the question, and remove the key"
            raise RowError(f"has '{key}', which multiple-choice questions do not support", hint, key)
    formats.refuse(row, CHOICE)
    asked = text_of(row, "question")
    letters = [letter for letter in string.ascii_uppercase if has(row, letter)]
    if len(letters) < 2 or letters != list(LETTERS[: len(letters)]):
        raise RowError(
            f"has the choices {', '.join(letters) or 'none'}; expected A, B, ... without a gap, 2 to {len(LETTERS)} of them"
        )
    choices = {letter: _choice_text(letter, row[letter]) for letter in letters}
    for letter, other in combinations(letters, 2):
        if choices[letter].strip() == choices[other].strip():
            raise RowError(f"'{letter}' and '{other}' are the same choice, {choices[letter]!r}")
    answer = text_of(row, "answer").strip().upper()
    if answer not in choices:
        raise RowError(f"'answer' is {row['answer']!r:.80}; expected one of {', '.join(letters)}")
    return {"question": asked, **choices, "answer": answer}


def converter(dataset: BenchmarkDataset) -> Callable[[Row], tuple[Row, set[str]]]:
    """A function that converts a row of `dataset`, and lists the keys that it does not read. It raises RowError."""
    template = template_format(dataset.template, f"{PLACE}.template") if dataset.template else None

    def convert(row: Row) -> tuple[Row, set[str]]:
        row = formats.rename(row, dataset.columns or {})
        if dataset.type is BenchmarkType.MULTIPLE_CHOICE:
            return convert_choice(row), _unread(row)
        row_format = template or detect(row)
        return convert_question(row, row_format), formats.ignored(row, row_format)

    return convert


def _unread(row: Row) -> set[str]:
    """The keys of a multiple-choice row that are not read."""
    return {key for key, value in row.items() if key not in CHOICE | formats.REFUSED.keys() and value is not None}


def _require_question(text: str) -> str:
    if not text.strip():
        raise RowError("has no question: it is empty")
    return text


def _user(text: str) -> Row:
    return {"role": "user", "content": _require_question(text)}


def _check_sendable(message: Row, place: str) -> Row:
    """Return a message that EvalScope sends unchanged. Raises RowError for keys that it drops, and for tool calls without ids."""
    for key in ("name", *THOUGHTS):
        if message.get(key):
            hint = "remove the key, or write its content into the message's content"
            raise RowError(f"{place}.{key} is not supported in evaluations", hint, f"{place}.{key}")
    calls = message.get("tool_calls", ())
    if not all("id" in call for call in calls) or (message["role"] == "tool" and "tool_call_id" not in message):
        raise RowError(
            f"{place} has no id of its tool call", "give each call an id, and its answer as tool_call_id", place
        )
    return message


def _choice_text(letter: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"'{letter}' is {kind_of(value)}; expected a string")
    if not str(value).strip():
        raise RowError(f"'{letter}' is empty; expected the choice's text")
    return str(value)
