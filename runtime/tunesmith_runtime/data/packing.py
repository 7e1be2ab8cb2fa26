"""Packing: rows are combined into sequences of a bounded length, so that little is padded.

The sequences are chosen by best fit in decreasing length (Johnson, 1974): each row goes into the sequence in which it
leaves the least room. They depend on the lengths and the seed alone and are the same in each epoch.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left, insort
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import NDArray

from tunesmith_runtime.data.example_file import example_lengths
from tunesmith_runtime.data.examples import IGNORED

if TYPE_CHECKING:
    from datasets import Dataset


def best_fit(lengths: Sequence[int], capacity: int, seed: int) -> NDArray[numpy.int32]:
    """Return for each row the number of its sequence, from 0. No sequence has more than `capacity` tokens.

    Rows of equal length are shuffled by the seed first, so that sequences do not follow the order of the file. Takes O(n log
    capacity). Raises ValueError for a row longer than `capacity`.
    """
    if max(lengths, default=0) > capacity:
        raise ValueError(f"a row has {max(lengths)} tokens, and a sequence at most {capacity}")
    shuffled = random.Random(seed).sample(range(len(lengths)), len(lengths))
    sequence_of = numpy.zeros(len(lengths), numpy.int32)
    rooms: list[int] = []  # ascending, without repetition
    with_room: dict[int, list[int]] = {}  # room -> the sequences that have it
    count = 0
    for row in sorted(shuffled, key=lengths.__getitem__, reverse=True):
        at = bisect_left(rooms, lengths[row])
        if at == len(rooms):
            sequence, room, count = count, capacity, count + 1
        else:
            room = rooms[at]
            sequence = with_room[room].pop()
            if not with_room[room]:
                del with_room[rooms.pop(at)]
        sequence_of[row] = sequence
        if rest := room - lengths[row]:
            if rest not in with_room:
                insort(rooms, rest)
            with_room.setdefault(rest, []).append(sequence)
    return sequence_of


class PackedRows:
    """Sequences of rows as a dataset: input_ids, labels, seq_lengths, the lengths of the rows in them, and weights if a row has some."""

    column_names = ("input_ids", "labels", "seq_lengths")

    def __init__(self, examples: Dataset, sequence_of: NDArray[numpy.int32]) -> None:
        """`sequence_of` has the number of the sequence of each example, as `best_fit` returns it."""
        self.examples, self.sequence_of = examples, sequence_of
        self._rows = numpy.argsort(sequence_of, kind="stable")
        counts = numpy.bincount(sequence_of)
        self._ends = numpy.cumsum(counts)
        lengths = numpy.asarray(example_lengths(examples.data), numpy.int64)
        self.lengths: Sequence[int] = array(
            "q", numpy.bincount(sequence_of, weights=lengths).astype(numpy.int64).tobytes()
        )
        """Tokens of each sequence."""

    @classmethod
    def of(cls, examples: Dataset, capacity: int, seed: int) -> PackedRows:
        """Pack `examples` into sequences of at most `capacity` tokens."""
        return cls(examples, best_fit(example_lengths(examples.data), capacity, seed))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A sequence. The first token of a row is never predicted, as the token before it belongs to another row."""
        start = self._ends[index - 1] if index else 0
        rows = self.examples[self._rows[start : self._ends[index]].tolist()]
        sequence = joined(rows["input_ids"], rows["labels"])
        if "weights" in rows:
            weights = map(token_weights, rows["weights"], rows["input_ids"])
            sequence["weights"] = list(chain.from_iterable(weights))
        return sequence


def joined(input_ids: Sequence[list[int]], labels: Sequence[list[int]]) -> dict[str, Any]:
    """Rows as a sequence."""
    first_unlearned: Any = ([IGNORED, *row[1:]] for row in labels)
    return {
        "input_ids": list(chain.from_iterable(input_ids)),
        "labels": list(chain.from_iterable(first_unlearned)),
        "seq_lengths": [len(row) for row in input_ids],
    }


def token_weights(weights: list[float] | None, input_ids: Sequence[int]) -> list[float]:
    """The factor of the loss of each token of a row."""
    return weights or [1.0] * len(input_ids)
