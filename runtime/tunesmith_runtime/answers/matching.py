"""Normalization of answers and references, which are equal if their normal forms are. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

SENTENCE_MARKS = ".,;:!?…、。"
"""Removed at the end only: `.5` is a number. A minus sign is never removed: -5 is not 5."""

PAIRS: Mapping[str, str] = {
    **{mark: mark for mark in "\"'`*_"},
    **dict(zip("([{<«“「『《〈【»", ")]}>»”」』》〉】«", strict=True)),
    "\N{LEFT SINGLE QUOTATION MARK}": "\N{RIGHT SINGLE QUOTATION MARK}",
    "„": "“”",
}
"""Quotes, brackets and markup that may enclose a whole answer: opening -> closing characters."""

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
"""Marks of the beginning and the end of a model's thought. Many templates put the beginning into the prompt."""

LONG = 4_000
"""Length from which a text is compared unchanged; it bounds the time for models that repeat a mark."""

APOSTROPHE = re.compile(r"(?<=\w)['\u2019](?=\w)")


def normalized(text: str) -> str:
    """Return the normal form of an answer; empty for white space.

    Unicode NFKC, case folding, and a single space for every run of white space. Then sentence marks at the end are removed,
    and pairs of quotes, brackets or markup around the whole, unless nothing would be left. Characters within the text stay:
    `3.5` is not `35`, `C#` is not `C`.
    """
    return bare(" ".join(unicodedata.normalize("NFKC", text).casefold().split()))


def bare(text: str) -> str:
    """Return `text` without sentence marks at its end and without pairs around the whole."""
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
    """Return `text` without sentence marks at its end, unless it consists of them."""
    return text.rstrip(SENTENCE_MARKS + " ") or text


def _unpaired(text: str) -> str:
    """Return `text` without the pair that encloses it, unless nothing would be left."""
    if len(text) > 2 and text[-1] in PAIRS.get(text[0], "") and _encloses(text):
        return text[1:-1].strip() or text
    return text


def _encloses(text: str) -> bool:
    """Whether the last character closes the first, and none before does: no pair encloses `(a) or (b)`."""
    begin, end = text[0], text[-1]
    if begin == end:
        return begin not in APOSTROPHE.sub("", text).strip(begin)
    depth = 0
    for character in text[:-1]:
        depth += (character == begin) - (character == end)
        if depth == 0:
            return False
    return True
