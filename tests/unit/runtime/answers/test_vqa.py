from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.answers.vqa import accuracy, consensus, normalized


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("The Red Ball.", "red ball"),
        ("two", "2"),
        ("None", "0"),
        ("Don't", "dont"),
        ("1,000", "1000"),
        ("1,5", "1 5"),
        ("3.5", "3.5"),
        ("3.", "3"),
        (".5", "5"),
        ("-5", "-5"),
        ("t-shirt", "t shirt"),
        ("yes!", "yes"),
        ("10:30", "10:30"),
        ("C#", "c#"),
        ("an apple / the pear", "apple pear"),
        ("答案：猫", "答案:猫"),  # noqa: RUF001
        ("?!", ""),
        ("", ""),
    ],
)
def test_articles_number_words_and_punctuation_are_normalized(answer: str, form: str) -> None:
    assert normalized(answer) == form


@pytest.mark.parametrize(("people", "value"), [(0, 0), (1, 1 / 3), (2, 2 / 3), (3, 1), (10, 1)])
def test_the_consensus_of_ten_people_is_full_from_three(people: int, value: float) -> None:
    answers = ["Red"] * people + [f"colour {index}" for index in range(10 - people)]
    assert consensus("red.", answers) == pytest.approx(value)
    assert accuracy("red.", answers) == pytest.approx(value)


@pytest.mark.parametrize(
    ("prediction", "answers", "value"),
    [
        ("two", ["2"], 1),
        ("a dog", ["cat", "dog"], 1),
        ("a dog in the garden", ["dog"], 0),
        ("-5", ["5"], 0),
        ("", ["dog"], 0),
        ("", [""], 0),
        ("dog", [], 0),
    ],
)
def test_of_fewer_answers_each_is_fully_right(prediction: str, answers: list[str], value: float) -> None:
    assert accuracy(prediction, answers) == value


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=12))
def test_the_accuracy_is_a_share(prediction: str, answers: list[str]) -> None:
    assert 0 <= accuracy(prediction, answers) <= 1
    assert accuracy(prediction, [prediction] * 10) == float(bool(normalized(prediction)))
