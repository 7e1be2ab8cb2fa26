"""Pairs and triplets of texts, for embedding models.

{"anchor", "positive"}, with "negative" for a triplet, and {"sentence1", "sentence2", "score"} are the columns of Sentence
Transformers; {"query", "pos": […], "neg": […]} is the format of FlagEmbedding.
"""

from __future__ import annotations

from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.records import Contrast, Pair
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, keys_of, kind_of

SPELLINGS = (("anchor", "positive"), ("query", "positive"), ("query", "pos"), ("sentence1", "sentence2"))
NEGATIVES = ("negative", "negatives", "neg")
SCORES = ("score", "similarity", "label")


def read(row: dict[str, Any]) -> Pair | Contrast | DropReason:
    """The pair with its score, if it has one; with negatives, the contrast."""
    found = next((spelling for spelling in SPELLINGS if has(row, *spelling)), None)
    if found is None:
        raise RowError(f"has no pair of texts; its keys are {keys_of(row)}; expected {EMBEDDING.expected}")
    (anchor, *rest), positives = _texts(row, found[0]), _texts(row, found[1])
    if rest:
        raise RowError(f"'{found[0]}' is a list; expected a string", field=found[0])
    negatives = [text for key in NEGATIVES if has(row, key) for text in _texts(row, key)]
    if not all(text.strip() for text in (anchor, *positives, *negatives)):
        return DropReason.EMPTY_ANSWER
    score = _score(row)
    if negatives and score is not None:
        raise RowError("has a score, which is of a pair, and texts of another meaning", "remove one of the two")
    if negatives or len(positives) > 1:
        return Contrast(anchor, tuple(positives), tuple(negatives))
    return Pair(anchor, positives[0], score)


def _texts(row: dict[str, Any], key: str) -> list[str]:
    """The text at `key`, or the texts of a list. Raises RowError."""
    value = row[key]
    listed = value if isinstance(value, list) else [value]
    if not listed or not all(isinstance(text, str) for text in listed):
        shown = "an empty list" if value == [] else kind_of(value)
        raise RowError(f"'{key}' is {shown}; expected a string or a list of strings", field=key)
    return listed


def _score(row: dict[str, Any]) -> float | None:
    key = next((key for key in SCORES if has(row, key)), None)
    if key is None:
        return None
    if not isinstance(row[key], int | float):
        raise RowError(f"'{key}' is {kind_of(row[key])}; expected a number", field=key)
    return float(row[key])


EMBEDDING = Format(
    RowFormat.EMBEDDING,
    records=frozenset({Pair, Contrast}),
    spellings=SPELLINGS,
    expected='{"anchor", "positive", "negative"}',
    known=frozenset({*(key for spelling in SPELLINGS for key in spelling), *NEGATIVES, *SCORES}),
    read=read,
)
