from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.answers.edit_distance import distance, error_rate, similarity

TEXTS = st.text("abc", max_size=12)


def by_definition(left: Sequence[object], right: Sequence[object]) -> int:
    """The distance by the recurrence of Wagner and Fischer."""
    row = list(range(len(right) + 1))
    for place, item in enumerate(left, 1):
        above, row[0] = row[0], place
        for column, other in enumerate(right, 1):
            above, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, above + (item != other))
    return row[-1]


@pytest.mark.parametrize(
    ("left", "right", "edits"),
    [
        ("kitten", "sitting", 3),
        ("flaw", "lawn", 2),
        ("intention", "execution", 5),
        ("", "abc", 3),
        ("abc", "", 3),
        ("", "", 0),
        ("ab", "ba", 2),
        ("猫が好き", "犬が好き", 1),
        (["the", "cat", "sat"], ["the", "cat", "sat", "down"], 1),
        (["ab", "c"], ["a", "bc"], 2),
    ],
)
def test_the_distance_counts_insertions_deletions_and_substitutions(
    left: Sequence[str], right: Sequence[str], edits: int
) -> None:
    assert distance(left, right) == edits


@given(TEXTS, TEXTS)
def test_the_distance_is_that_of_the_recurrence(left: str, right: str) -> None:
    assert distance(left, right) == by_definition(left, right)


@given(TEXTS, TEXTS, TEXTS)
def test_the_distance_is_a_metric(left: str, right: str, third: str) -> None:
    assert distance(left, right) == distance(right, left)
    assert (distance(left, right) == 0) == (left == right)
    assert distance(left, third) <= distance(left, right) + distance(right, third)


@given(st.text("ab", min_size=60, max_size=150), st.text("ab", min_size=60, max_size=150))
def test_long_texts_are_compared_beyond_the_words_of_a_machine(left: str, right: str) -> None:
    assert distance(left, right) == by_definition(left, right)


@pytest.mark.parametrize(
    ("left", "right", "value"),
    [("abcd", "abcd", 1), ("abcd", "abcx", 0.75), ("ab", "", 0), ("", "", 1), ("ab", "abcd", 0.5)],
)
def test_the_similarity_is_1_minus_the_share_of_edits(left: str, right: str, value: float) -> None:
    assert similarity(left, right) == value


def test_the_rate_sums_edits_and_lengths_before_it_divides() -> None:
    assert error_rate([("abcd", "abcx"), ("", "z" * 6)]) == 7 / 10
    assert error_rate([]) == 0
    assert error_rate([("abc", "")]) == 3
    assert error_rate([("abcabc", "abc")]) == 1
