from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.answers.matching import answer_of, normalized


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
def test_different_content_is_a_different_answer(answer: str, reference: str) -> None:
    assert normalized(answer) != normalized(reference)


@given(st.text(st.characters(categories=["P", "S", "Zs"])) | st.text())
def test_an_empty_answer_equals_no_reference(reference: str) -> None:
    assert (normalized(reference) == normalized("")) == (not reference.strip())


@given(st.text())
def test_normalization_is_idempotent(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)


@pytest.mark.parametrize(
    "prediction",
    [
        "<think>fruit? no</think>tool",
        "fruit? no</think>tool",
        "<think>fruit</think><think>metal</think>tool",
        "<thinking>fruit</thinking>tool",
        "<THINK>fruit</THINK>tool",
        "[THINK]fruit[/THINK]tool",
        "◁think▷fruit◁/think▷tool",
        "<|channel|>analysis<|message|>fruit<|end|><|start|>assistant<|channel|>final<|message|>tool",
        "tool",
    ],
)
def test_thoughts_are_not_part_of_the_answer(prediction: str) -> None:
    assert answer_of(prediction) == "tool"


@pytest.mark.parametrize(
    "prediction",
    [
        "<think>fruit? no",
        "<think>fruit</think>  \n",
        "<think>fruit</think><think>tool",
        "tool <think> or",
        "[THINK]tool",
        "<|channel|>analysis<|message|>tool",
        "",
        " \n",
    ],
)
def test_a_thought_without_an_end_leaves_no_answer(prediction: str) -> None:
    assert answer_of(prediction) is None


def test_a_long_text_is_compared_unchanged() -> None:
    assert normalized("*" * 400_000) == "*" * 400_000
