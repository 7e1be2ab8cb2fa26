from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.evaluate.matching import answer_of, normalized


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Fruit", "fruit"),
        ("  noun.food \n", "noun.food"),
        ("**Fruit.**", "fruit"),
        ('"a  kind\nof fruit"!', "a kind of fruit"),
        ("Straße", "STRASSE"),
        ("ﬁne", "fine"),
        ("「东京」。", "东京"),
        ("(B)", "B"),
        ("`42`", "42"),
        ("'don't know'", "don't know"),
        ("((a) or (b)).", "(a) or (b)"),
        ("“***Yes!***”", "yes"),
    ],
)
def test_case_white_space_and_outer_punctuation_do_not_matter(answer: str, reference: str) -> None:
    assert normalized(answer) == normalized(reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("-5", "5"),
        ("3.5", "35"),
        (".5", "5"),
        ("noun.food", "noun food"),
        ("not fruit", "fruit"),
        ("fruit fruit", "fruit"),
        ("", "fruit"),
        ("C#", "C"),
        ("A*", "A"),
        ("#1", "1"),
        ("<", ">"),
        ("*", "_"),
        ("_x", "x"),
        ("?", "!"),
        ("(a) or (b)", "a) or (b"),
        ("`a` or `b`", "a` or `b"),
    ],
)
def test_what_says_something_else_is_another_answer(answer: str, reference: str) -> None:
    assert normalized(answer) != normalized(reference)


@given(st.text(st.characters(categories=["P", "S", "Zs"])) | st.text())
def test_an_answer_that_says_nothing_equals_no_reference(reference: str) -> None:
    assert (normalized(reference) == normalized("")) == (not reference.strip())


@given(st.text())
def test_the_common_form_is_final(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)


def test_thoughts_are_no_part_of_the_answer() -> None:
    assert answer_of("<think>fruit? no</think>\n\ntool") == "\n\ntool"
    assert answer_of("tool") == "tool"
