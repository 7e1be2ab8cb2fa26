from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.answers.captions import bleu, cider, rouge_l

WORDS = st.lists(st.sampled_from("cat dog sits on red mat".split()), min_size=1, max_size=8).map(" ".join)  # noqa: SIM905
CASES = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=4)


def test_bleu_is_the_geometric_mean_of_precisions_times_the_brevity_penalty() -> None:
    # precisions 5/5, 4/4, 3/3 and 2/2; 5 words for 6
    assert bleu(["the cat sat on the"], [["the cat sat on the mat"]]) == pytest.approx(math.exp(1 - 6 / 5))
    # precisions 5/6, 3/5, 2/4 and 1/3
    expected = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert bleu(["the cat sat on a mat"], [["the cat sat on the mat"]]) == pytest.approx(expected)


def test_bleu_takes_the_best_of_captions_whose_number_differs() -> None:
    assert bleu(["a b c d e", "f g h i j"], [["x", "a b c d e"], ["f g h i j"]]) == pytest.approx(1)


@pytest.mark.parametrize("caption", ["一只白色的猫坐在垫子上", "白い猫がマットに座っている", "แมวสีขาวนั่งอยู่บนเสื่อ"])
def test_captions_without_spaces_are_divided_into_characters(caption: str) -> None:
    for score in (bleu, rouge_l):
        assert score([caption], [[caption]]) == pytest.approx(1)
        assert 0.5 < score([caption[:-1]], [[caption]]) < 1


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence() -> None:
    # "the cat on mat": 4 of 5 and 4 of 6 words
    assert rouge_l(["the cat is on mat"], [["the cat sat on the mat"]]) == pytest.approx(2 * 4 / (5 + 6))
    assert rouge_l(["a dog", "The cat!"], [["x", "a dog"], ["the cat"]]) == 1
    assert rouge_l(["猫坐下"], [["狗坐下"]]) == pytest.approx(2 / 3)
    assert rouge_l(["a", ""], [["a"], ["b"]]) == 0.5


def test_cider_d_of_two_pictures_is_that_by_hand() -> None:
    # every n-gram is in one picture, so that its weight is ln 2, but for "a", which weighs 0
    references = [["a red ball"], ["a blue car"]]
    assert cider(["a red ball", "a blue car"], references) == pytest.approx(10 * 3 / 4)  # no 4-grams in three words
    # 1-grams: "red" of red, ball: cosine 1/(sqrt 2 sqrt 2); 2-grams: "a red" of two; 3-grams: none
    assert cider(["a red car", "x y z"], references) == pytest.approx(10 * (1 / 2 + 1 / 2) / 4 / 2)


def test_cider_d_clips_repeated_words_and_punishes_other_lengths() -> None:
    references = [["red ball"], ["blue car"]]
    repeated = cider(["red red red ball", "x"], references)
    # 1-grams: min(3, 1) red + ball = 2 over sqrt(10) sqrt(2); 2-grams: 1 "red ball" over sqrt(2^2 + 1); two words longer
    by_hand = 10 * (2 / math.sqrt(20) + 1 / math.sqrt(5)) / 4 * math.exp(-(2**2) / 72) / 2
    assert repeated == pytest.approx(by_hand)


def test_cider_d_is_the_mean_over_the_captions_of_a_picture() -> None:
    one = cider(["red ball", "q"], [["red ball"], ["blue car"]])
    two = cider(["red ball", "q"], [["red ball", "green tree"], ["blue car"]])
    assert two == pytest.approx(one / 2)


def test_a_single_picture_has_no_rare_words() -> None:
    assert cider(["a cat"], [["a cat"]]) == 0


@given(CASES)
def test_scores_are_in_their_range(cases: list[tuple[str, list[str]]]) -> None:
    predictions, references = [prediction for prediction, _ in cases], [each for _, each in cases]
    assert 0 <= bleu(predictions, references) <= 1
    assert 0 <= rouge_l(predictions, references) <= 1
    assert 0 <= cider(predictions, references) <= 10
    assert rouge_l([each[0] for each in references], references) == 1


@pytest.mark.parametrize("score", [bleu, rouge_l, cider])
def test_no_captions_have_0_and_unpaired_ones_are_an_error(score: type) -> None:
    assert score([], []) == 0
    assert score([""], [["a cat"]]) == 0
    with pytest.raises(ValueError, match="1 predictions for 2 pictures"):
        score(["a"], [["a"], ["b"]])
    with pytest.raises(ValueError, match="picture 1 has no captions"):
        score(["a", "b"], [["a"], []])
