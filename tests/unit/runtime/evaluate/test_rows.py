from __future__ import annotations

from typing import Any

import pytest

from tunesmith_runtime.data.records import RowError
from tunesmith_runtime.evaluate.rows import choice, question

ASKED = {"role": "user", "content": "What is a kiwi?"}
SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "fruit"}


@pytest.mark.parametrize(
    "row",
    [
        {"query": "What is a kiwi?", "response": "fruit"},
        {"prompt": "What is a kiwi?", "completion": "fruit"},
        {"prompt": [ASKED], "completion": [ANSWER]},
        {"messages": [ASKED, ANSWER]},
        {"messages": [ASKED, ANSWER, {"role": "user", "content": "Thanks."}]},
        {"query": "What is a kiwi?", "response": "fruit", "source": "a book"},
    ],
)
def test_every_form_gives_the_same_question(row: dict[str, Any]) -> None:
    assert question(row) == {"messages": [ASKED], "response": "fruit"}


@pytest.mark.parametrize(
    "row",
    [{"messages": [SYSTEM, ASKED, ANSWER]}, {"system": "Be brief.", "query": "What is a kiwi?", "response": "fruit"}],
)
def test_a_rows_own_system_message_is_kept(row: dict[str, Any]) -> None:
    assert question(row) == {"messages": [SYSTEM, ASKED], "response": "fruit"}


def test_earlier_turns_are_asked_and_the_last_answer_is_the_reference() -> None:
    more = {"role": "user", "content": "And an otter?"}
    row = {"messages": [ASKED, ANSWER, more, {"role": "assistant", "content": "animal"}]}
    assert question(row) == {"messages": [ASKED, ANSWER, more], "response": "animal"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "x", "answer": "y"}, "is in no known form: its keys are question, answer"),
        ({}, "its keys are none"),
        ({"query": "x", "response": ""}, "no answer to compare with"),
        ({"query": "x", "response": " \n"}, "no answer to compare with"),
        ({"query": "x", "response": 3}, "'response' is a number"),
        ({"query": " ", "response": "y"}, "asks nothing"),
        ({"messages": [ASKED]}, "no answer to compare with"),
        ({"messages": [ANSWER]}, "asks nothing"),
        ({"messages": "hello"}, "'messages' is a string"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "role 'boss'"),
    ],
)
def test_a_row_that_cannot_be_asked_says_why(row: dict[str, Any], words: str) -> None:
    with pytest.raises(RowError) as wrong:
        question(row)
    assert words in str(wrong.value)


def test_a_choice_is_told_as_text_and_its_answer_as_a_letter() -> None:
    row = {"id": 7, "question": "2 + 2?", "A": 3, "B": 4, "C": "5", "answer": " b ", "topic": "sums"}
    assert choice(row) == {"question": "2 + 2?", "A": "3", "B": "4", "C": "5", "answer": "B"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"A": "x", "B": "y", "answer": "A"}, "has no 'question'"),
        ({"question": "?", "A": "x", "answer": "A"}, "has the choices A; expected"),
        ({"question": "?", "A": "x", "C": "y", "answer": "A"}, "without a gap"),
        ({"question": "?", "A": "x", "B": "y", "answer": "C"}, "expected one of A, B"),
        ({"question": "?", "A": "x", "B": ["y"], "answer": "A"}, "'B' is a list"),
        ({"question": "?", "A": "x", "B": " ", "answer": "A"}, "'B' is empty"),
        ({"question": "?", "A": "x", "B": "y", "C": "x ", "answer": "A"}, "'A' and 'C' are the same choice, 'x'"),
        ({"question": "?", "A": 1, "B": "1", "answer": "A"}, "'A' and 'B' are the same choice"),
        ({"question": "?", "A": "x", "B": "y", "answer": ""}, "expected one of A, B"),
        ({"question": "?", "A": "x", "B": "y", "answer": "x"}, "expected one of A, B"),
        ({"question": "?", "A": "x", "B": "y"}, "has no 'answer'"),
    ],
)
def test_a_choice_that_cannot_be_asked_says_why(row: dict[str, Any], words: str) -> None:
    with pytest.raises(RowError) as wrong:
        choice(row)
    assert words in str(wrong.value)
