"""The forms of training rows (one by one, in pairs, in groups, of several texts, packed, streamed) where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy
from datasets import Dataset

from tunesmith_runtime.data.example_file import example_lengths
from tunesmith_runtime.data.packing import PackedRows
from tunesmith_runtime.data.pairs import Pairs
from tunesmith_runtime.data.prompts import Prompts
from tunesmith_runtime.data.text_groups import TextGroups
from tunesmith_runtime.train.rows.batches import append_blank
from tunesmith_runtime.train.rows.streaming import StreamedRows

TrainingRows: TypeAlias = Dataset | Pairs | Prompts | TextGroups | PackedRows | StreamedRows


def known(rows: TrainingRows) -> Any:
    """The rows that are known before training, by index; of streamed rows, the first window."""
    return rows.first_window() if isinstance(rows, StreamedRows) else rows


def lengths_of(rows: TrainingRows) -> Sequence[int]:
    """Tokens of each row or sequence that is known."""
    if isinstance(rows, StreamedRows):
        return [len(row["input_ids"]) for row in rows.first_window()]
    return rows.lengths if isinstance(rows, PackedRows | Pairs | Prompts | TextGroups) else example_lengths(rows.data)


def count_of(rows: TrainingRows) -> int:
    """Rows or sequences of an epoch; 0 where nobody knows."""
    return 0 if isinstance(rows, StreamedRows) else len(rows)


def as_dataset(rows: TrainingRows) -> Dataset:
    """Rows as the type that TRL's trainers accept; they train on others all the same."""
    if isinstance(rows, StreamedRows):
        return Dataset.from_list(
            [{name: row[name] for name in ("input_ids", "labels")} for row in rows.first_window()[:1]]
        )
    return rows.examples if isinstance(rows, PackedRows | Pairs | Prompts | TextGroups) else rows


def has_weights(rows: Any) -> bool:
    """Return whether answers of the rows have weights other than 0 and 1. Those of a stream have none."""
    return not isinstance(rows, StreamedRows) and "weights" in as_dataset(rows).column_names


def fill_batches(rows: TrainingRows, token: int) -> TrainingRows:
    """`rows` with a further row at the end, which has no labels and fills up a batch of several processes. A stream
    fills every batch."""
    if isinstance(rows, StreamedRows):
        return rows
    if isinstance(rows, PackedRows):
        sequence_of = numpy.append(rows.sequence_of, numpy.int32(len(rows)))
        return PackedRows(append_blank(rows.examples, token), sequence_of)
    if isinstance(rows, Pairs):
        return Pairs(append_blank(append_blank(rows.examples, token), token), rows.reference)
    if isinstance(rows, TextGroups):
        return TextGroups(append_blank(rows.examples, token))
    if isinstance(rows, Prompts):
        return Prompts(append_blank(rows.examples, token), rows.group)
    return append_blank(rows, token)
