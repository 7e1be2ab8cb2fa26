"""When an answer equals its reference: after both are put into one form. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

SENTENCE_MARKS = ".,;:!?…、。"
"""Taken off the end only: `.5` is a number. No minus sign anywhere: -5 is not 5."""

PAIRS: Mapping[str, str] = {
    **{mark: mark for mark in "\"'`*_"},
    **dict(zip("([{<«“「『《〈【»", ")]}>»”」』》〉】«", strict=True)),
    "\N{LEFT SINGLE QUOTATION MARK}": "\N{RIGHT SINGLE QUOTATION MARK}",
    "„": "“”",
}
"""What may stand around a whole answer -> what closes it: quotes, brackets and markup."""

THOUGHT = "think|thinking|thought|reasoning|seed:think"
THOUGHTS: Sequence[tuple[re.Pattern[str], re.Pattern[str]]] = [
    (re.compile(begin, re.IGNORECASE), re.compile(end, re.IGNORECASE))
    for begin, end in (
        (rf"<({THOUGHT})\b[^<>]*>", rf"</({THOUGHT})\s*>"),
        (r"\[THINK\]", r"\[/THINK\]"),
        (r"◁think▷", r"◁/think▷"),
        (r"<\|(?:begin_of_thought|START_THINKING)\|>", r"<\|(?:end_of_thought|END_THINKING)\|>"),
        (r"<\|channel\|>\s*analysis", r"<\|channel\|>\s*final\s*<\|message\|>"),
    )
]
"""How models mark a thought: where it begins and where it ends. Many templates put the beginning into the prompt."""

LONG = 4_000
"""Characters of a text that is compared as it is: a model that repeats a mark without end costs no minutes."""

APOSTROPHE = re.compile(r"(?<=\w)['\u2019](?=\w)")


def normalized(text: str) -> str:
    """The form in which answers are compared; empty for white space alone.

    Unicode NFKC, case folded, every run of white space one space; then sentence marks are taken off the end, and quotes,
    brackets and markup where a pair of them is around the whole, as long as something is left. What is within stays:
    `3.5` is not `35`, `C#` is not `C`.
    """
    return bare(" ".join(unicodedata.normalize("NFKC", text).casefold().split()))


def bare(text: str) -> str:
    """Text without sentence marks at its end and pairs around the whole."""
    while len(text) < LONG and (less := _unpaired(_unmarked(text))) != text:
        text = less
    return text


def answer_of(prediction: str) -> str | None:
    """Return the answer after the model's thoughts; None if a thought has no end, or nothing follows it."""
    for begin, end in THOUGHTS:
        begun, ended = ([*mark.finditer(prediction)] for mark in (begin, end))
        last = ended[-1].end() if ended else 0
        if begun and begun[-1].start() >= last:
            return None
        prediction = prediction[last:]
    return prediction if prediction.strip() else None


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
