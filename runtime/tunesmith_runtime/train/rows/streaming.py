"""Streamed rows as a data set of torch, with the place in the stream that a checkpoint keeps."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_api.training import Training
from tunesmith_runtime.data.examples import Example
from tunesmith_runtime.data.packing import best_fit, joined
from tunesmith_runtime.data.stream import COUNTS, Arrange, Place, Sequence, Stream
from tunesmith_runtime.train.rows.batches import order

PLACE_FILE = "stream.json"
"""The place in a checkpoint."""


class StreamedRows(IterableDataset[Sequence]):
    """The sequences of a stream, without end. All steps take equally many, so that the place follows from their number."""

    column_names = ("input_ids", "labels", "seq_lengths")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._start, self._skipped = Place(), 0
        self._places = [self._start]
        self._first: list[Sequence] | None = None

    def __iter__(self) -> Iterator[Sequence]:
        self._places, skipped = [self._start], self._skipped
        for place, sequences in self.stream.windows(self._start):
            if place != self._places[-1]:
                self._places.append(place)
            yield from sequences[skipped:]
            skipped = max(0, skipped - len(sequences))

    def first_window(self) -> list[Sequence]:
        """The sequences of the first window of the data."""
        if self._first is None:
            self._first = next(self.stream.windows(Place()))[1]
        return self._first

    def place(self, consumed: int) -> Place:
        """The window in which `consumed` sequences end. Earlier ones are forgotten."""
        while len(self._places) > 1 and self._places[1].sequences <= consumed:
            del self._places[0]
        return self._places[0]

    def save(self, folder: Path, consumed: int) -> None:
        """Write the place after `consumed` sequences into a checkpoint."""
        so_far = COUNTS.dump_python(self.stream.counts, mode="json")
        place = self.place(consumed).model_copy(
            update={"so_far": so_far, "dropped": list(self.stream.dropped.examples)}
        )
        (folder / PLACE_FILE).write_text(place.model_dump_json(by_alias=True))

    def resume(self, folder: Path, consumed: int) -> None:
        """Continue after `consumed` sequences, from the place in a checkpoint, with the counts of rows that it has."""
        place = Place.model_validate_json((folder / PLACE_FILE).read_bytes())
        self.stream.counts = COUNTS.validate_python(place.so_far or {})
        for example in place.dropped or ():
            self.stream.dropped.keep(example)
        self._start = place.model_copy(update={"so_far": None, "dropped": None})
        self._skipped = consumed - self._start.sequences


class CountPasses(TrainerCallback):  # type: ignore[misc]
    """Sets the epoch of the Trainer's state to the passes over the data that are done."""

    def __init__(self, rows: StreamedRows, batch_size: int) -> None:
        self._rows, self._batch_size = rows, batch_size

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count up to the end of the step."""
        state.epoch = float(self._rows.place(state.global_step * self._batch_size).passes)


def arrangement(training: Training, capacity: int) -> Arrange:
    """How the sequences of a window are made: packed, or rows of similar length in batches; in an order by the seed."""
    if training.packing:
        return partial(_packed, capacity, training.seed)
    return partial(_by_length, training.global_batch_size, training.seed)


def _by_length(batch_size: int, seed: int, examples: list[Example], window: str) -> list[Sequence]:
    lengths = [len(example.input_ids) for example in examples]
    return [
        {"input_ids": examples[index].input_ids, "labels": examples[index].labels}
        for index in order(lengths, batch_size, seed, window)
    ]


def _packed(capacity: int, seed: int, examples: list[Example], window: str) -> list[Sequence]:
    sequence_of = best_fit([len(example.input_ids) for example in examples], capacity, seed).tolist()
    sequences: list[list[Example]] = [[] for _ in range(max(sequence_of, default=-1) + 1)]
    for example, sequence in zip(examples, sequence_of, strict=True):
        sequences[sequence].append(example)
    random.Random(f"{seed} {window}").shuffle(sequences)
    return [joined([row.input_ids for row in rows], [row.labels for row in rows]) for rows in sequences]
