from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.answers.transcription import ErrorRates, error_rates, normalized


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Hello,  World!", "hello world"),
        ("It\u2019s a well-known 'fact'", "it's a well known fact"),
        ("L'été à 20 %", "l'été à 20"),
        ("ＡＢＣ", "abc"),  # noqa: RUF001
        ("你好， 世界。", "你好世界"),  # noqa: RUF001
        ("我 用 iPhone 手机", "我用iphone手机"),
        ("ภาษา ไทย", "ภาษาไทย"),
        ("हिन्दी है।", "हिन्दी है"),
        ("Straße", "strasse"),
        ("… — !", ""),
        ("", ""),
    ],
)
def test_transcripts_are_compared_in_their_normal_form(text: str, form: str) -> None:
    assert normalized(text) == form


@given(st.text(max_size=30))
def test_the_normal_form_is_stable(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)


def test_word_and_character_errors_are_counted_over_the_references() -> None:
    found = error_rates(["The cat sat.", "on a mat"], ["the cat sat", "on the mat"])
    # "on a mat": 1 of 6 words; of 11 + 10 characters, "the" to "a" is 3 edits
    assert found == ErrorRates(words=1 / 6, characters=3 / 21, has_words=True)
    assert found.primary == 1 / 6


@pytest.mark.parametrize("spaced", ["今天 天气 很 好", "今天天气很好。"])
def test_of_scripts_without_spaces_the_character_rate_is_compared(spaced: str) -> None:
    found = error_rates([spaced], ["今天天气真好"])
    assert found.characters == 1 / 6
    assert not found.has_words
    assert found.primary == 1 / 6


@pytest.mark.parametrize(
    ("predictions", "references", "words"),
    [
        ([], [], 0),
        (["a b"], ["a b"], 0),
        ([""], ["a b"], 1),
        (["a b c d"], ["a b"], 1),
        (["x y z"], ["a"], 3),
        (["a b"], [""], 2),
    ],
)
def test_rates_of_empty_and_of_long_transcripts_are_finite(
    predictions: list[str], references: list[str], words: float
) -> None:
    assert error_rates(predictions, references).words == words


def test_transcripts_without_a_reference_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        error_rates(["a", "b"], ["a"])
