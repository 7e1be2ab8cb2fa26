"""When an answer equals its reference: after both are put into one form. Pure functions."""

from __future__ import annotations

import unicodedata

QUOTES_AND_MARKUP = frozenset("\"'`*_#<>")
SENTENCE_MARKS = frozenset(".,;:!?…、。")
"""Taken off the end only: `.5` is a number. No minus sign anywhere: -5 is not 5."""
QUOTES = frozenset({"Pi", "Pf"})


def normalized(text: str) -> str:
    """The form in which answers are compared.

    Unicode NFKC, case folded, every run of white space one space; then quotes, brackets, markup and sentence marks are
    taken off both ends. What is within stays: `3.5` is not `35`.
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    begin, end = 0, len(text)
    while begin < end and _opens(text[begin]):
        begin += 1
    while end > begin and _closes(text[end - 1]):
        end -= 1
    return text[begin:end]


def answer_of(prediction: str) -> str:
    """What a model says after it has thought: the text behind the last </think>, or all of it."""
    return prediction.rpartition("</think>")[2]


def _opens(character: str) -> bool:
    return character.isspace() or character in QUOTES_AND_MARKUP or unicodedata.category(character) in {"Ps", *QUOTES}


def _closes(character: str) -> bool:
    marks = QUOTES_AND_MARKUP | SENTENCE_MARKS
    return character.isspace() or character in marks or unicodedata.category(character) in {"Pe", *QUOTES}
