"""When an answer equals its reference: after both are put into one form. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

SENTENCE_MARKS = ".,;:!?…、。"
"""Taken off the end only: `.5` is a number. No minus sign anywhere: -5 is not 5."""

PAIRS: Mapping[str, str] = {
    **{mark: mark for mark in "\"'`*_"},
    **dict(zip("([{<«“「『《〈【»", ")]}>»”」』》〉】«", strict=True)),
    "\N{LEFT SINGLE QUOTATION MARK}": "\N{RIGHT SINGLE QUOTATION MARK}",
    "„": "“”",
}
"""What may stand around a whole answer -> what closes it: quotes, brackets and markup."""

APOSTROPHE = re.compile(r"(?<=\w)['\u2019](?=\w)")


def normalized(text: str) -> str:
    """The form in which answers are compared; empty for white space alone.

    Unicode NFKC, case folded, every run of white space one space; then sentence marks are taken off the end, and quotes,
    brackets and markup where a pair of them is around the whole, as long as something is left. What is within stays:
    `3.5` is not `35`, `C#` is not `C`.
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    while (less := _unpaired(_unmarked(text))) != text:
        text = less
    return text


def answer_of(prediction: str) -> str:
    """What a model says after it has thought: the text behind the last </think>, or all of it."""
    return prediction.rpartition("</think>")[2]


def _unmarked(text: str) -> str:
    """Text without sentence marks at its end, unless it is nothing else."""
    return text.rstrip(SENTENCE_MARKS + " ") or text


def _unpaired(text: str) -> str:
    """Text without the pair around it, if there is one and something in it."""
    if len(text) > 2 and text[-1] in PAIRS.get(text[0], "") and _encloses(text):
        return text[1:-1].strip() or text
    return text


def _encloses(text: str) -> bool:
    """Whether the first character is closed by the last, and not before: `(a) or (b)` is no pair around a whole."""
    begin, end = text[0], text[-1]
    if begin == end:
        return begin not in APOSTROPHE.sub("", text).strip(begin)
    depth = 0
    for character in text[:-1]:
        depth += (character == begin) - (character == end)
        if depth == 0:
            return False
    return True
