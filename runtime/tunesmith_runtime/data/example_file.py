"""Examples in Arrow files, which are read by memory mapping: the memory of a process does not grow with the data.

A file is an Arrow IPC stream, the format of datasets.Dataset (https://arrow.apache.org/docs/format/Columnar.html). It is
local to the pod, below the work directory, and never uploaded.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.ipc
from numpy.typing import NDArray

from tunesmith_runtime.data.examples import IGNORED, Example

if TYPE_CHECKING:
    from datasets import Dataset

BUFFERED_TOKENS = 1 << 18
"""Tokens that are held in memory before they are written."""

TOKENS = pyarrow.list_(pyarrow.int32())
SCHEMA = pyarrow.schema(
    {
        "row": pyarrow.int64(),
        "input_ids": TOKENS,
        "labels": TOKENS,
        "value": pyarrow.float64(),
        "columns": pyarrow.string(),
        "weights": pyarrow.list_(pyarrow.float32()),
        "media": pyarrow.list_(pyarrow.string()),
    }
)
"""`row` counts the rows of the file from 0; a row may have several examples. `value`, `columns`, `weights` and `media` are those of
the example, or null."""
FURTHER = ("value", "columns", "weights", "media")
"""Columns that a dataset has where an example has a value for them."""


class RowWriter(Protocol):
    """Takes the examples of rows in their order."""

    rows: int
    """Rows so far."""

    def write(self, examples: list[Example]) -> None:
        """Add a row with these examples."""
        ...


class ExampleWriter:
    """Writes the examples of rows in their order."""

    def __init__(self, stream: pyarrow.RecordBatchWriter) -> None:
        self.rows = 0
        self._stream = stream
        self._clear()

    def write(self, examples: Sequence[Example]) -> None:
        """Add a row with these examples."""
        for example in examples:
            self._rows.append(self.rows)
            self._input_ids.extend(example.input_ids)
            self._labels.extend(example.labels)
            self._offsets.append(len(self._input_ids))
            self._values.append(example.value)
            self._columns.append(example.columns)
            self._weights.append(example.weights)
            self._media.append(example.media)
        self.rows += 1
        if len(self._input_ids) >= BUFFERED_TOKENS:
            self.flush()

    def flush(self) -> None:
        """Write the buffered examples."""
        if not self._rows:
            return
        offsets, input_ids, labels = (
            numpy.frombuffer(numbers, numpy.int32) for numbers in (self._offsets, self._input_ids, self._labels)
        )
        columns = [pyarrow.ListArray.from_arrays(offsets, tokens, type=TOKENS) for tokens in (input_ids, labels)]
        rows = pyarrow.array(numpy.frombuffer(self._rows, numpy.int64))
        values = zip((self._values, self._columns, self._weights, self._media), FURTHER, strict=True)
        further = [pyarrow.array(found, SCHEMA.field(name).type) for found, name in values]
        self._stream.write_batch(pyarrow.RecordBatch.from_arrays([rows, *columns, *further], schema=SCHEMA))
        self._clear()

    def _clear(self) -> None:
        self._rows, self._offsets, self._input_ids, self._labels = array("q"), array("i", [0]), array("i"), array("i")
        self._values: list[float | None] = []
        self._columns: list[str | None] = []
        self._weights: list[list[float] | None] = []
        self._media: list[list[str] | None] = []


@contextmanager
def write_examples(path: Path) -> Iterator[ExampleWriter]:
    """A writer of the file at `path`, which is complete afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, SCHEMA) as stream:
        writer = ExampleWriter(stream)
        yield writer
        writer.flush()


def move_rows(path: Path, is_moved: NDArray[numpy.bool_], into: Path) -> None:
    """Move rows of a file into another; both keep their order. `is_moved` has an entry for each row."""
    rest = path.with_suffix(".partial")
    with (
        pyarrow.OSFile(str(path)) as source,
        pyarrow.OSFile(str(into), "wb") as moved_file,
        pyarrow.OSFile(str(rest), "wb") as rest_file,
        pyarrow.ipc.new_stream(moved_file, SCHEMA) as moved_stream,
        pyarrow.ipc.new_stream(rest_file, SCHEMA) as rest_stream,
    ):
        for batch in pyarrow.ipc.open_stream(source):
            moved = is_moved[batch["row"].to_numpy()]
            moved_stream.write_batch(batch.filter(pyarrow.array(moved)))
            rest_stream.write_batch(batch.filter(pyarrow.array(~moved)))
    rest.replace(path)


def repeat_rows(path: Path, times: NDArray[numpy.int32]) -> None:
    """Write each row of a file as often as `times` has for its number in the column `row`, each time with all its examples."""
    repeated = path.with_suffix(".partial")
    with (
        pyarrow.OSFile(str(path)) as source,
        pyarrow.OSFile(str(repeated), "wb") as file,
        pyarrow.ipc.new_stream(file, SCHEMA) as stream,
    ):
        for batch in pyarrow.ipc.open_stream(source):
            rows = batch["row"].to_numpy()
            repetitions = times[rows]
            indices = numpy.repeat(numpy.arange(len(batch)), repetitions)
            copies = numpy.arange(len(indices)) - numpy.repeat(repetitions.cumsum() - repetitions, repetitions)
            indices = indices[numpy.lexsort((indices, copies, rows[indices]))]
            lengths = pyarrow.compute.list_value_length(batch["input_ids"]).to_numpy()[indices]
            ends = numpy.flatnonzero(numpy.diff(lengths.cumsum() // BUFFERED_TOKENS)) + 1
            for part in numpy.split(indices, ends):
                if len(part):
                    stream.write_batch(batch.take(pyarrow.array(part)))
    repeated.replace(path)


def open_examples(path: Path) -> Dataset:
    """The examples of a file as a memory-mapped dataset with the columns input_ids, labels, and those further ones that have a value."""
    from datasets import Dataset

    examples = Dataset.from_file(str(path))
    further = [name for name in FURTHER if examples.data[name].null_count < len(examples)]
    return examples.select_columns(["input_ids", "labels", *further])


def open_columns(path: Path) -> pyarrow.Table:
    """The examples of a file as memory-mapped columns, without the package datasets."""
    with pyarrow.memory_map(str(path)) as file:
        return pyarrow.ipc.open_stream(file).read_all()


def open_parts(path: Path, ends: Sequence[int]) -> list[Dataset]:
    """The examples of a file in parts: `ends` has the number of rows up to the end of each. Empty unless there are several."""
    from datasets import Dataset

    if len(ends) < 2:
        return []
    stops = numpy.searchsorted(Dataset.from_file(str(path)).data["row"].to_numpy(), ends).tolist()
    examples = open_examples(path)
    return [examples.select(range(start, stop)) for start, stop in zip([0, *stops], stops, strict=False)]


def example_lengths(columns: pyarrow.Table) -> Sequence[int]:
    """Tokens of each example, read from the offsets alone."""
    chunks = columns["input_ids"].chunks
    return array("i", b"".join(pyarrow.compute.list_value_length(chunk).to_numpy().tobytes() for chunk in chunks))


def last_answer_starts(columns: pyarrow.Table) -> Sequence[int]:
    """Index of the first token of the last answer of each example: of its last run of labels; 0 without one."""
    starts_of_answers = array("i")
    for chunk in columns["labels"].chunks:
        offsets = chunk.offsets.to_numpy()
        is_learned = chunk.values.to_numpy()[: offsets[-1]] != IGNORED
        begins = is_learned.copy()
        begins[1:] &= ~is_learned[:-1]
        begins[offsets[:-1]] = False  # an answer without a prompt begins at 0 all the same
        within = numpy.arange(len(is_learned)) - numpy.repeat(offsets[:-1], numpy.diff(offsets))
        if len(chunk):
            found = numpy.maximum.reduceat(begins * within, offsets[:-1])
            starts_of_answers.frombytes(found.astype(numpy.int32).tobytes())
    return starts_of_answers


def labelled_counts(columns: pyarrow.Table) -> Sequence[int]:
    """Tokens of each example that the loss is taken on. The first token is never predicted, so its label does not count."""
    counts = array("i")
    for chunk in columns["labels"].chunks:
        starts = chunk.offsets.to_numpy()[:-1]
        is_learned = chunk.values.to_numpy() != IGNORED
        is_learned[starts] = False
        if len(starts):
            ends = chunk.offsets.to_numpy()[-1]
            counts.frombytes(numpy.add.reduceat(is_learned[:ends], starts, dtype=numpy.int32).tobytes())
    return counts
