"""Pairs and triplets of texts, for embedding models.

{"anchor", "positive"}, with "negative" for a triplet, and {"sentence1", "sentence2", "score"} are the columns of Sentence
Transformers; {"query", "pos": […], "neg": […]} is the format of FlagEmbedding. ms-swift has messages in place of texts: {"messages",
"positive_messages": [[…]], "negative_messages": [[…], …]}, with "label" for the score of a pair.
"""

from __future__ import annotations

from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.messages import TURNS, unscaled
from tunesmith_runtime.data.records import Contrast, Pair
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, keys_of, kind_of

SPELLINGS = (("anchor", "positive"), ("query", "positive"), ("query", "pos"), ("sentence1", "sentence2"))
MESSAGES = {"messages": "anchor", "positive_messages": "positive", "negative_messages": "negative"}
"""Keys of messages, and the keys of their texts."""
NEGATIVES = ("negative", "negatives", "neg")
SCORES = ("score", "similarity", "label")


def read(row: dict[str, Any]) -> Pair | Contrast | DropReason:
    """The pair with its score, if it has one; with negatives, the contrast."""
    if has(row, "messages", "positive_messages"):
        row = _with_texts(row)
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


def _with_texts(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the texts of its messages under the keys of texts. Raises RowError."""
    texts: dict[str, Any] = {"anchor": _text(row["messages"], "messages")}
    for key in ("positive_messages", "negative_messages"):
        if not has(row, key):
            continue
        if not isinstance(row[key], list):
            raise RowError(f"'{key}' is {kind_of(row[key])}; expected a list of lists of messages", field=key)
        texts[MESSAGES[key]] = [_text(each, f"{key}[{index}]") for index, each in enumerate(row[key])]
    return {**texts, **{key: value for key, value in row.items() if key in SCORES}}


def _text(value: Any, place: str) -> str:
    """The content of a message, after that of a system message, which is its instruction. Raises RowError."""
    if isinstance(value, dict):
        hint = f"write a list of lists: {place.partition('[')[0]}: [[{{role, content}}], …]"
        raise RowError(f"{place} is a message; expected a list of messages", hint, place)
    messages, _ = unscaled(value, place)
    roles = [message["role"] for message in messages]
    if len(roles) - roles.count("system") != 1 or roles[-1] == "system":
        raise RowError(
            f"{place} has messages of the roles {', '.join(roles) or 'none'}; expected one text, which may follow a system message",
            "write each text as a message of role user",
            place,
        )
    return " ".join(message["content"] for message in messages if message["content"].strip())


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
    spellings=(*SPELLINGS, ("messages", "positive_messages")),
    expected='{"anchor", "positive", "negative"}',
    known=frozenset({*(key for spelling in SPELLINGS for key in spelling), *NEGATIVES, *SCORES, *MESSAGES}),
    read=read,
    turns={"messages": TURNS},
)
