"""From users' rows to the rows that EvalScope reads. Pure functions that raise RowError."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

from tunesmith_api.evaljob import BenchmarkType
from tunesmith_api.training import RowFormat
from tunesmith_runtime import messages as chat
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats import alpaca, messages
from tunesmith_runtime.data.records import Continuation, Conversation, Record
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, keys_of, kind_of, text_of
from tunesmith_runtime.messages import THOUGHTS, asks

Row = dict[str, Any]

LETTERS = "ABCDEFGHIJ"
FORMS = "{query, response}, {prompt, completion}, {instruction, output}, {messages} or {conversations}"
READ = (RowFormat.MESSAGES, RowFormat.SHAREGPT, RowFormat.PROMPT_COMPLETION, RowFormat.ALPACA)
"""Training formats whose rows are also questions; the last answer is the reference."""
QUERY = frozenset({"query", "response", "system", "history"})
CHOICE = frozenset({"question", "answer", *LETTERS})


def convert_question(row: Row) -> Row:
    """Convert a row of type qa to {messages, response}: the question and the reference."""
    for key in ("tools", "functions"):
        if asks(row.get(key)) and chat.tools(row[key], key):
            raise RowError(f"has '{key}', which evaluations do not support", "remove the rows that need tools", key)
    record = _read_record(row)
    if record is DropReason.NO_PROMPT:
        raise RowError("has no question: no user message comes before the last answer")
    if record is DropReason.NOT_LEARNED:
        raise RowError("has no answer to compare with: all have weight 0")
    if isinstance(record, DropReason):
        raise RowError("has no answer to compare with: the last message or the response is missing or empty")
    if isinstance(record, Continuation):
        return {"messages": [_user(record.prompt)], "response": record.completion}
    assert isinstance(record, Conversation), f"no format in READ yields {type(record).__name__}"
    *asked, answer = record.messages
    if asked[-1]["role"] not in ("user", "tool"):
        raise RowError("has no question: the message before the last answer is not a user message")
    if answer.get("tool_calls"):
        raise RowError("has no answer to compare with: the last message of the assistant calls a tool")
    return {
        "messages": [_check_sendable(message, f"messages[{index}]") for index, message in enumerate(asked)],
        "response": answer["content"],
    }


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


CONVERT: Mapping[BenchmarkType, Callable[[Row], Row]] = {
    BenchmarkType.QA: convert_question,
    BenchmarkType.MULTIPLE_CHOICE: convert_choice,
}


def ignored(row: Row, kind: BenchmarkType) -> set[str]:
    """Return the keys of a row that are not read."""
    row_format = _format_of(row)
    if kind is BenchmarkType.QA and row_format is not None:
        return formats.ignored(row, row_format)
    known = CHOICE if kind is BenchmarkType.MULTIPLE_CHOICE else QUERY
    return {key for key, value in row.items() if key not in known | formats.REFUSED.keys() and value is not None}


def _format_of(row: Row) -> RowFormat | None:
    return next((row_format for row_format in READ if formats.FORMATS[row_format].matches(row)), None)


def _read_record(row: Row) -> Record | DropReason:
    """Read a row as question and reference. Of several answers, the last answer that is learned is the reference."""
    if row_format := _format_of(row):
        return formats.read(row, row_format)
    if "query" in row and "response" in row:
        formats.refuse(row, QUERY)
        turns = alpaca.turn(_require_question(text_of(row, "query")), text_of(row, "response"))
        return messages.answered(row, [*alpaca.history(row), *turns])
    raise RowError(f"is in no known form: its keys are {keys_of(row)}; expected {FORMS}")


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
