"""Accuracy of short answers to questions about pictures (VQA v2, Goyal et al., 2017, https://visualqa.org/evaluation.html). Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

PEOPLE = 10
"""Number of people who answer each question of VQA v2, and of the data sets in its form: OK-VQA, TextVQA, VizWiz."""
AGREEING = 3
"""Number of people whose common answer is fully right."""
NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())  # noqa: SIM905
} | {"none": "0"}
ARTICLES = frozenset({"a", "an", "the"})
APOSTROPHE = re.compile(r"['\u2018\u2019`]")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
MARKS = re.compile(r"""[;/\[\]"{}()=+\\_<>@,?!]|(?<!\d)\.|\.(?!\d)|(?<=\w)-|-(?!\d)""")
"""Punctuation that VQA v2 removes. A decimal point stays, and so does the minus sign of a number."""


def normalized(answer: str) -> str:
    """Return the normal form of a short answer; empty for white space and punctuation.

    NFKC and folded case, without articles, apostrophes (`dont` is `don't`) and the punctuation of MARKS; the words zero to
    ten become digits, and commas between thousands are removed.
    """
    text = THOUSANDS.sub("", APOSTROPHE.sub("", unicodedata.normalize("NFKC", answer).casefold()))
    words = (NUMBERS.get(word, word) for word in MARKS.sub(" ", text).split())
    return " ".join(word for word in words if word not in ARTICLES)


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return the accuracy of a prediction, from 0 to 1: by consensus for the answers of ten people or more, else 1 for any right answer.

    0 for an empty prediction and for no answers.
    """
    return consensus(prediction, answers) if len(answers) >= PEOPLE else float(_votes(prediction, answers) > 0)


def consensus(prediction: str, answers: Sequence[str]) -> float:
    """Return min(n / 3, 1), where n people of those who were asked gave the predicted answer.

    The script of VQA v2 takes the mean of this over all subsets of nine people, so that n of 1, 2 and 3 give 0.3, 0.6 and
    0.9 there.
    """
    return min(_votes(prediction, answers) / AGREEING, 1.0)


def _votes(prediction: str, answers: Sequence[str]) -> int:
    """Return how many answers are equal to the prediction; none are equal to an empty one."""
    predicted = normalized(prediction)
    return sum(normalized(answer) == predicted for answer in answers) if predicted else 0
