"""From a user's rows to the rows that EvalScope reads. Pure functions; RowError says what is wrong with a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunesmith_api.evaljob import BenchmarkType
from tunesmith_runtime.data.formats import messages, prompt_completion
from tunesmith_runtime.data.records import Continuation, Conversation, DropReason, RowError, kind_of, text_of

Row = dict[str, Any]

LETTERS = "ABCDEFGHIJ"
FORMS = "{query, response}, {prompt, completion} or {messages}"


def question(row: Row) -> Row:
    """A row of type qa as {messages, response}: what is asked, and the answer that is right."""
    record = _record(row)
    if isinstance(record, DropReason):
        raise RowError("has no answer to compare with: the last message or the response is missing or empty")
    if isinstance(record, Continuation):
        return {"messages": [_user(record.prompt)], "response": record.completion}
    *asked, answer = record.messages
    if not asked or asked[-1]["role"] != "user":
        raise RowError("asks nothing: the message before the last answer is not the user's")
    return {
        "messages": [{"role": each["role"], "content": each["content"]} for each in asked],
        "response": answer["content"],
    }


def choice(row: Row) -> Row:
    """A row of type multipleChoice as {question, A, B, ..., answer}; numbers as choices are told as text."""
    asked = text_of(row, "question")
    letters = [letter for letter in LETTERS if letter in row]
    if len(letters) < 2 or letters != list(LETTERS[: len(letters)]):
        raise RowError(
            f"has the choices {', '.join(letters) or 'none'}; expected A, B, ... without a gap, 2 to {len(LETTERS)} of them"
        )
    choices = {letter: _choice_text(letter, row[letter]) for letter in letters}
    answer = text_of(row, "answer").strip().upper()
    if answer not in choices:
        raise RowError(f"'answer' is {row['answer']!r}; expected one of {', '.join(letters)}")
    return {"question": asked, **choices, "answer": answer}


CONVERT: Mapping[BenchmarkType, Callable[[Row], Row]] = {
    BenchmarkType.QA: question,
    BenchmarkType.MULTIPLE_CHOICE: choice,
}


def _record(row: Row) -> Conversation | Continuation | DropReason:
    if "messages" in row:
        return messages.read(row)
    if "prompt" in row and "completion" in row:
        return prompt_completion.read(row)
    if "query" in row and "response" in row:
        asked, answer = text_of(row, "query"), text_of(row, "response")
        system = [{"role": "system", "content": text}] if (text := text_of(row, "system", "")) else []
        return messages.answered([*system, _user(asked), {"role": "assistant", "content": answer}], None)
    raise RowError(f"is in no known form: its keys are {', '.join(row) or 'none'}; expected {FORMS}")


def _user(text: str) -> Row:
    if not text.strip():
        raise RowError("asks nothing: the question is empty")
    return {"role": "user", "content": text}


def _choice_text(letter: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"'{letter}' is {kind_of(value)}; expected a string")
    return str(value)
