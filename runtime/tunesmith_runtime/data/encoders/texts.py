"""Encoder of texts that are compared: each is an example, with its role in the row."""

from __future__ import annotations

from enum import StrEnum

from tunesmith_runtime.data.encoding import Encoding
from tunesmith_runtime.data.examples import Example
from tunesmith_runtime.data.records import Contrast, Pair
from tunesmith_runtime.data.text_encoder import TextEncoder


class TextRole(StrEnum):
    """What a text is in its row. The first of each row is the anchor, or, in rows of joined texts, the first positive."""

    ANCHOR = "anchor"
    FIRST = "first"
    POSITIVE = "positive"
    NEGATIVE = "negative"


def encode_pair(record: Pair, text: TextEncoder) -> Encoding[list[Example]]:
    """Both texts, with their score."""
    found: list[Example] = []
    for role, each in ((TextRole.ANCHOR, record.anchor), (TextRole.POSITIVE, record.other)):
        found.append(_example((yield from text.whole(each)), role, record.score))
    return found


def encode_contrast(record: Contrast, text: TextEncoder) -> Encoding[list[Example]]:
    """The anchor, then its positives, then its negatives."""
    texts = [(TextRole.ANCHOR, record.anchor)]
    texts += [(TextRole.POSITIVE, each) for each in record.positives]
    texts += [(TextRole.NEGATIVE, each) for each in record.negatives]
    found: list[Example] = []
    for role, each in texts:
        found.append(_example((yield from text.whole(each)), role, None))
    return found


def _example(ids: list[int], role: TextRole, score: float | None) -> Example:
    return Example(ids, list(ids), is_text=True, value=score, columns=role)
