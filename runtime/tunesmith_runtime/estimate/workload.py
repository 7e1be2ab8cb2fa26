"""The rows of a run as the estimate needs them: their number, their tokens, and the batch that needs most memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest

from tunesmith_runtime.estimate.device_setup import Batch

KEPT = 64
"""Longest rows that are kept: larger micro batches are filled with the shortest of them."""


@dataclass(frozen=True)
class Workload:
    """Rows that are trained on."""

    rows: int
    tokens: int
    """Tokens of one pass over the rows, without padding."""
    longest: tuple[int, ...]
    """Tokens of the longest rows, in falling order."""
    most_labelled: tuple[int, ...]
    """Tokens with a label of the rows that have most, in falling order."""
    is_exact: bool = True
    """Whether every row was counted; otherwise rows and tokens follow from a sample, or from training.maxLength."""

    sequences: int | None = None
    """Sequences that packing makes of the rows, where they were packed."""
    answers: int = 1
    """Sequences of each row: 2 for preferences. `longest` is the length of the longer one."""

    compared: int = 0
    """Further sequences of each row for each other row of its forward pass."""
    others: int = 0
    """The number of these other rows with which `tokens` are counted."""

    @property
    def mean_row(self) -> float:
        """Tokens of a row on average, in all its sequences."""
        return self.tokens / max(1, self.rows)

    @property
    def mean_length(self) -> float:
        """Tokens of a sequence on average."""
        return self.mean_row / (self.answers + self.compared * self.others)

    def batch(self, rows: int) -> Batch:
        """Return the micro batch of the longest rows, which the dry pass of a training uses too."""
        available = min(rows, self.rows)
        lengths = [self.longest[min(index, len(self.longest) - 1)] for index in range(max(1, available))]
        labelled = [self.most_labelled[min(index, len(self.most_labelled) - 1)] for index in range(max(1, available))]
        lengths *= self.answers + self.compared * (len(lengths) - 1)
        return Batch(tuple(lengths), min(sum(labelled), sum(lengths)))

    def packed(self, max_length: int) -> Workload:
        """Return the workload of rows that are packed into sequences of `max_length` tokens."""
        rows = self.sequences or max(1, -(-self.tokens // max_length))
        share = sum(self.most_labelled) / max(1, sum(self.longest))
        return Workload(
            rows, self.tokens, (max_length,), (min(max_length, round(share * max_length)),), self.sequences is not None
        )

    def scaled(self, rows: int) -> Workload:
        """Return the workload of all `rows` rows, from this sample."""
        return replace(self, rows=rows, tokens=round(self.mean_row * rows), is_exact=False)


def count(lengths: Sequence[int], labelled: Sequence[int], answers: int = 1) -> Workload:
    """Return the workload of sequences by their tokens and their tokens with a label; every `answers` of them are a row."""
    return Workload(
        rows=len(lengths) // answers,
        tokens=sum(lengths),
        longest=tuple(nlargest(KEPT, map(max, _rows(lengths, answers)))) or (1,),
        most_labelled=tuple(nlargest(KEPT, map(sum, _rows(labelled, answers)))) or (1,),
        answers=answers,
    )


def _rows(values: Sequence[int], answers: int) -> Iterator[tuple[int, ...]]:
    """The values of the sequences of each row."""
    return zip(*[iter(values)] * answers, strict=True)


def assume(rows: int, max_length: int) -> Workload:
    """Return the workload of rows of unknown length: each has `max_length` tokens, all of them with labels."""
    return Workload(rows, rows * max_length, (max_length,), (max_length,), is_exact=False)
