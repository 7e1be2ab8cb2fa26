from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.answers.recognition import character_error_rate, similarity


@pytest.mark.parametrize(
    ("prediction", "reference", "value"),
    [
        ("TOTAL 12.50", "TOTAL 12.50", 1),
        ("TOTAL 12.80", "TOTAL 12.50", 10 / 11),
        ("total", "TOTAL", 0),
        ("TOTAL.", "TOTAL", 5 / 6),
        (" TOTAL\n 12.50 ", "TOTAL 12.50", 1),
        ("cafe\u0301", "caf\u00e9", 1),
        ("", "TOTAL", 0),
        ("TOTAL", "", 0),
        ("", " ", 1),
        ("出口", "入口", 0.5),
    ],
)
def test_case_and_punctuation_count_and_white_space_and_unicode_forms_do_not(
    prediction: str, reference: str, value: float
) -> None:
    assert similarity(prediction, reference) == pytest.approx(value)


@given(st.text(max_size=20), st.text(max_size=20))
def test_the_similarity_is_a_symmetric_share(left: str, right: str) -> None:
    assert similarity(left, right) == similarity(right, left)
    assert 0 <= similarity(left, right) <= 1
    assert similarity(left, left) == 1


def test_the_character_error_rate_weighs_long_texts_more() -> None:
    assert character_error_rate([("abcdefgh", "abcdefgh"), ("x", "yz")]) == 2 / 10
    assert character_error_rate([]) == 0
