"""The reading of choices: answers with their verdicts are in answers.json, in English and Chinese."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.answers.choices import LETTERS, read_choice, read_letter
from tunesmith_runtime.answers.matching import answer_of

TABLE = json.loads(Path(__file__).with_name("answers.json").read_text(encoding="utf-8"))
KIWI = TABLE["questions"]["kiwi"]["choices"]


def verdict(question: str, answer: str) -> str:
    asked, text = TABLE["questions"][question], answer_of(answer)
    letter = None if text is None else read_choice(text, asked["choices"])
    return "unreadable" if letter is None else "right" if letter == asked["answer"] else "wrong"


def test_the_table_has_hundreds_of_answers_of_each_verdict() -> None:
    verdicts = [expected for _, expected, _ in TABLE["answers"]]
    assert len(verdicts) > 500
    assert min(verdicts.count(each) for each in ("right", "wrong", "unreadable")) > 50


@pytest.mark.parametrize("question", list(TABLE["questions"]))
def test_each_answer_has_the_verdict_of_a_human(question: str) -> None:
    answers = [(answer, expected) for asked, expected, answer in TABLE["answers"] if asked == question]
    assert [(answer, verdict(question, answer)) for answer, _ in answers] == answers


@pytest.mark.parametrize(
    "text", ["B\n\nA kiwi grows on", "ANSWER: B\nExplanation:", "**B) a fruit**\nIt", "The answer is B.\n1"]
)
def test_of_an_answer_that_was_cut_off_a_complete_first_line_counts(text: str) -> None:
    assert read_choice(text, KIWI, cut_off=True) == "B"


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "ANSWER: A",
        "a fruit",
        "Okay, let me see. The answer is A, as\nit",
        "First, is it A?\nThe answer is A.\nWait",
        "",
    ],
)
def test_of_an_answer_that_was_cut_off_nothing_else_counts(text: str) -> None:
    assert read_choice(text, KIWI, cut_off=True) is None


@given(st.lists(st.text(min_size=1), min_size=2, max_size=10, unique_by=str.strip), st.text(), st.booleans())
def test_whatever_is_answered_the_letter_is_one_of_the_choices(choices: list[str], text: str, cut_off: bool) -> None:
    assert read_choice(text, choices, cut_off) in {None, *LETTERS[: len(choices)]}


@given(st.integers(2, 10), st.data())
def test_every_letter_is_read_in_every_common_form(count: int, data: st.DataObject) -> None:
    choices = [f"number {number}" for number in range(count)]
    letter = data.draw(st.sampled_from(LETTERS[:count]))
    form = data.draw(
        st.sampled_from(["{}", "({})", "{}.", "**{}**", "ANSWER: {}", "The answer is {}.", "答案:{}", "\\boxed{{{}}}"])
    )
    case = data.draw(st.sampled_from([str.upper, str.lower]))
    assert read_choice(form.format(case(letter)), choices) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(x)", "X"),
        ("The answer is B. I am sure.", "B"),
        ("B. A dog is no fruit.", "B"),
        ("B, because I know it", "B"),
        ("Vitamin C is an acid", None),
        ("A, B", None),
        ("", None),
    ],
)
def test_a_letter_is_read_without_the_texts_of_the_choices(text: str, letter: str | None) -> None:
    assert read_letter(text) == letter


@given(st.lists(st.sampled_from(["kiwis", "grow", "on", "vines", "and", "are", "raw", "by"]), min_size=2))
def test_prose_names_no_choice_whatever_its_capital_letter(words: list[str]) -> None:
    for first in ("A", "I", "Bananas", "Certainly,"):
        assert read_choice(f"{first} {' '.join(words)}.", KIWI) is None
