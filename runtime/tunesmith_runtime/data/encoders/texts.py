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
    return (
        yield from _examples([(TextRole.ANCHOR, record.anchor), (TextRole.POSITIVE, record.other)], text, record.score)
    )


def encode_contrast(record: Contrast, text: TextEncoder) -> Encoding[list[Example]]:
    """The anchor, then its positives, then its negatives."""
    texts = [(TextRole.ANCHOR, record.anchor)]
    texts += [(TextRole.POSITIVE, each) for each in record.positives]
    texts += [(TextRole.NEGATIVE, each) for each in record.negatives]
    return (yield from _examples(texts, text))


def _examples(
    texts: list[tuple[TextRole, str]], text: TextEncoder, score: float | None = None
) -> Encoding[list[Example]]:
    """An example of each text."""
    found = yield from text.whole(*(each for _, each in texts))
    return [
        Example(ids, list(ids), is_text=True, value=score, columns=role)
        for (role, _), ids in zip(texts, found, strict=True)
    ]
