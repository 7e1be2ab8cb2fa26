"""From a user's rows to the rows that EvalScope reads. Pure functions; RowError says what is wrong with a row."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

from tunesmith_api.evaljob import BenchmarkType
from tunesmith_api.finetunejob import RowFormat
from tunesmith_runtime import messages as chat
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.formats import alpaca, messages
from tunesmith_runtime.data.records import (
    Continuation,
    Conversation,
    DropReason,
    Record,
    RowError,
    has,
    keys_of,
    kind_of,
    text_of,
)
from tunesmith_runtime.messages import THOUGHTS, asks

Row = dict[str, Any]

LETTERS = "ABCDEFGHIJ"
FORMS = "{query, response}, {prompt, completion}, {instruction, output}, {messages} or {conversations}"
READ = (RowFormat.MESSAGES, RowFormat.SHAREGPT, RowFormat.PROMPT_COMPLETION, RowFormat.ALPACA)
"""Formats of rows to train on that are questions as well; the last answer is the reference."""
QUERY = frozenset({"query", "response", "system", "history"})
CHOICE = frozenset({"question", "answer", *LETTERS})


def question(row: Row) -> Row:
    """A row of type qa as {messages, response}: what is asked, and the answer that is right."""
    for key in ("tools", "functions"):
        if asks(row.get(key)) and chat.tools(row[key], key):
            raise RowError(f"has '{key}', which an evaluation can't ask with", "remove the rows that need tools", key)
    record = _record(row)
    if record is DropReason.NO_PROMPT:
        raise RowError("asks nothing: no message of the user is before the last answer")
    if record is DropReason.NOT_LEARNED:
        raise RowError("has no answer to compare with: all have weight 0")
    if isinstance(record, DropReason):
        raise RowError("has no answer to compare with: the last message or the response is missing or empty")
    if isinstance(record, Continuation):
        return {"messages": [_user(record.prompt)], "response": record.completion}
    assert isinstance(record, Conversation), f"no format in READ yields {type(record).__name__}"
    *asked, answer = record.messages
    if asked[-1]["role"] not in ("user", "tool"):
        raise RowError("asks nothing: the message before the last answer is not the user's")
    if answer.get("tool_calls"):
        raise RowError("has no answer to compare with: the last message of the assistant calls a tool")
    return {
        "messages": [_sent(each, f"messages[{index}]") for index, each in enumerate(asked)],
        "response": answer["content"],
    }


def choice(row: Row) -> Row:
    """A row of type multipleChoice as {question, A, B, ..., answer}; numbers as choices are told as text."""
    for key in ("system", "system_prompt", "history", "tools", "functions"):
        if asks(row.get(key)):
            hint = "write what it says into the question, and remove the key"
            raise RowError(f"has '{key}', which can't be honoured here", hint, key)
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
    BenchmarkType.QA: question,
    BenchmarkType.MULTIPLE_CHOICE: choice,
}


def ignored(row: Row, kind: BenchmarkType) -> set[str]:
    """Keys of a row that are not read."""
    form = _form(row)
    if kind is BenchmarkType.QA and form is not None:
        return formats.ignored(row, form)
    known = CHOICE if kind is BenchmarkType.MULTIPLE_CHOICE else QUERY
    return {key for key, value in row.items() if key not in known | formats.REFUSED.keys() and value is not None}


def _form(row: Row) -> RowFormat | None:
    return next((form for form in READ if formats.FORMATS[form].matches(row)), None)


def _record(row: Row) -> Record | DropReason:
    """Read a row as question and reference. Of several answers the last one that is learned is the reference."""
    if form := _form(row):
        return formats.read(row, form)
    if "query" in row and "response" in row:
        formats.refuse(row, QUERY)
        turns = alpaca.turn(_asked(text_of(row, "query")), text_of(row, "response"))
        return messages.answered(row, [*alpaca.history(row), *turns])
    raise RowError(f"is in no known form: its keys are {keys_of(row)}; expected {FORMS}")


def _asked(text: str) -> str:
    if not text.strip():
        raise RowError("asks nothing: the question is empty")
    return text


def _user(text: str) -> Row:
    return {"role": "user", "content": _asked(text)}


def _sent(message: Row, place: str) -> Row:
    """A message as EvalScope sends it. Raises RowError for a key that it does not send, or sends only with an id."""
    for key in ("name", *THOUGHTS):
        if message.get(key):
            hint = "remove the key, or write what it says into the content"
            raise RowError(f"{place}.{key} can't be asked with", hint, f"{place}.{key}")
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
