"""Encoder of a query with its passages: each passage is an example, the sequence of query and passage."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encoders.texts import TextRole
from tunesmith_runtime.data.encoding import Encoding
from tunesmith_runtime.data.examples import IGNORED, Example
from tunesmith_runtime.data.records import Contrast, Pair
from tunesmith_runtime.data.text_encoder import TextEncoder


def encode_joined_pair(record: Pair, text: TextEncoder) -> Encoding[list[Example] | DropReason]:
    """The query with its positive passage."""
    return (yield from _joined(record.anchor, [record.other], [], text))


def encode_joined_contrast(record: Contrast, text: TextEncoder) -> Encoding[list[Example] | DropReason]:
    """The query with each of its positives, then with each of its negatives."""
    return (yield from _joined(record.anchor, record.positives, record.negatives, text))


def _joined(
    query: str, positives: Sequence[str], negatives: Sequence[str], text: TextEncoder
) -> Encoding[list[Example] | DropReason]:
    """An example for each passage. The labels are the tokens of the passage, so that a batch can join it with another query."""
    roles = [TextRole.FIRST, *[TextRole.POSITIVE] * (len(positives) - 1), *[TextRole.NEGATIVE] * len(negatives)]
    query_ids, *passages = yield from text.ids(query, *positives, *negatives)
    if not all(passages):
        return DropReason.EMPTY_ANSWER
    template, found = text.pair, list[Example]()
    for role, passage in zip(roles, passages, strict=True):
        ids = template.joined(query_ids, passage)
        start = len(ids) - len(template.after) - len(passage)
        labels = [*[IGNORED] * start, *passage, *[IGNORED] * len(template.after)]
        found.append(Example(ids, labels, columns=role))
    return found
