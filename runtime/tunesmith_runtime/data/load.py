"""Reads the rows of a run's data sets and encodes them into files of examples.

Each row is kept, or dropped for a reason that is counted, or refused with its file and line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
from numpy.typing import NDArray
from pyarrow import Table, concat_tables

from tunesmith_api.datasets import Dataset as DatasetSpec
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.finetunejob_status import DatasetRows, DroppedRows, Rows
from tunesmith_api.method_facts import Method
from tunesmith_runtime.data.contamination import Questions, read_questions
from tunesmith_runtime.data.dropped_rows import DropLog
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.example_file import (
    RowWriter,
    move_rows,
    open_columns,
    open_examples,
    open_parts,
    repeat_rows,
)
from tunesmith_runtime.data.media_files import MediaFiles
from tunesmith_runtime.data.mixing import Draw, draw
from tunesmith_runtime.data.row_counts import RowCounts, converted_images, ignored_keys, warn_of_ignored
from tunesmith_runtime.data.row_encoder import Learnable, RowEncoder, Source
from tunesmith_runtime.data.split import held_out_rows
from tunesmith_runtime.data.stream import COUNTS, Arrange, Stream
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import DataFile, Work

if TYPE_CHECKING:
    from datasets import Dataset

MAX_LENGTH = 1 << 20
"""The largest training.maxLength."""
VALIDATION, VALIDATION_COUNTS = "validation.arrow", "validation.json"
"""Files of the work directory: the examples held out, and the counts of their rows."""


@dataclass(frozen=True)
class Data:
    """The files of the examples to train on and of those held out, and what became of the rows."""

    train_file: Path
    validation_file: Path | None
    rows: Rows
    validation_ends: Sequence[int] = ()
    """For each validation data set the number of rows up to its end."""

    def columns(self) -> Table:
        """The examples to train on, then those held out, as columns."""
        files = [file for file in (self.train_file, self.validation_file) if file]
        return concat_tables(map(open_columns, files))

    @cached_property
    def train(self) -> Dataset:
        """The examples to train on, memory-mapped."""
        return open_examples(self.train_file)

    @cached_property
    def validation(self) -> Dataset | None:
        """The examples held out, memory-mapped."""
        return open_examples(self.validation_file) if self.validation_file else None

    @cached_property
    def validation_sets(self) -> Sequence[Dataset]:
        """The examples held out, apart by data set, where there are several."""
        return open_parts(self.validation_file, self.validation_ends) if self.validation_file else ()


def load(work: Work, spec: FineTuneJobSpec, encoder: Encoder, learnable: Learnable) -> Data:
    """Encode the rows of all data sets in their order, and the validation rows. The first dropped rows of each reason are in
    `dropped_rows.FILE`, also after a failure.

    Raises RunFailure: BadRow with file and line, EmptyDataset, ChatTemplateMissing, BadSpec for rows that the method
    does not learn from, DiskFull.
    """
    rows = RowEncoder(work, encoder, learnable, spec, DropLog(work.examples), _questions(work, spec))
    return _load(rows, spec, encoder)


def load_stream(
    work: Work,
    spec: FineTuneJobSpec,
    encoder: Encoder,
    learnable: Learnable,
    arrange: Arrange,
    is_leader: bool,
) -> StreamedData:
    """The rows of all data sets as a stream; and the validation rows, which the leader of the pod encodes now. The leader also
    writes the first dropped rows of each reason to `dropped_rows.FILE`, as they are found.

    Raises RunFailure as `load`, for validation rows.
    """
    sources = _sources(work, spec)
    separate = _validation_sources(work, spec)
    dropped = DropLog(work.examples if is_leader else None)
    held_out_file, counts_file = work.examples / VALIDATION, work.examples / VALIDATION_COUNTS
    if separate and is_leader:
        encoded = RowEncoder(work, encoder, learnable, spec, dropped).encode(separate, held_out_file)
        _check_held_out(separate, encoded, encoder)
        counts_file.write_bytes(COUNTS.dump_json(encoded))
    held_out = COUNTS.validate_json(counts_file.read_bytes()) if separate else None
    questions = _questions(work, spec)

    def encode(writer: RowWriter, counts: RowCounts) -> None:
        RowEncoder(work, encoder, learnable, spec, dropped, questions).encode_to(sources, writer, counts)

    return StreamedData(
        Stream(
            encode,
            arrange,
            lambda counts: _empty(", ".join(dataset.source for dataset in spec.datasets), counts, encoder, spec.method),
            dropped,
        ),
        open_examples(held_out_file) if held_out else None,
        held_out,
        open_parts(held_out_file, held_out.ends) if held_out else (),
    )


@dataclass(frozen=True)
class StreamedData:
    """The stream to train on, the examples held out, and what became of their rows."""

    stream: Stream
    validation: Dataset | None
    held_out: RowCounts | None
    validation_sets: Sequence[Dataset] = ()
    """As in `Data`."""

    @property
    def rows(self) -> Rows:
        """Counts of the rows of the first pass so far, and of those held out."""
        return _summary(self.stream.counts, self.held_out or RowCounts(), self.held_out is not None, [])


def _load(rows: RowEncoder, spec: FineTuneJobSpec, encoder: Encoder) -> Data:
    work = rows.work
    train_file, validation_file = work.examples / "train.arrow", work.examples / VALIDATION
    validation = spec.validation
    # The validation rows first: a training row that repeats one of them is the duplicate.
    separate = _validation_sources(work, spec)
    held_out = rows.encode(separate, validation_file)
    train = rows.encode(_sources(work, spec), train_file)
    warn_of_ignored("data sets", train.ignored + held_out.ignored)
    _check_kept(spec, train, encoder)
    _check_held_out(separate, held_out, encoder)
    is_held_out = held_out_rows(train.kept, validation.fraction if validation else None, spec.training.seed)
    if is_held_out.any():
        move_rows(train_file, is_held_out, validation_file)
        held_out.kept = int(is_held_out.sum())
        train.kept -= held_out.kept
    draws = _draw(spec, train.ends, is_held_out)
    if draws:
        repeat_rows(train_file, _times(draws, is_held_out))
    counts = _summary(train, held_out, validation is not None, draws)
    (work.examples / VALIDATION_COUNTS).write_bytes(COUNTS.dump_json(held_out))
    (work.examples / "rows.json").write_text(json.dumps(counts.to_dict()))
    return open_data(work)


def _draw(spec: FineTuneJobSpec, ends: list[int], is_held_out: NDArray[numpy.bool_]) -> list[Draw]:
    """How often each training row is in a pass, by the weights of the data sets; empty without weights.

    `ends`: for each data set the number of rows up to its end. Raises RunFailure (EmptyDataset) for one without a row.
    """
    weights = [dataset.weight for dataset in spec.datasets if dataset.weight is not None]
    if len(weights) < len(spec.datasets):
        return []
    there = [int((~part).sum()) for part in numpy.split(is_held_out, ends[:-1])]
    for dataset, rows in zip(spec.datasets, there, strict=True):
        if not rows:
            message = f"no row of {dataset.source} can be trained on, and its weight is {dataset.weight:g}"
            raise RunFailure(FailureClass.EMPTY_DATASET, message, "remove the data set, or correct its rows")
    return draw(there, weights, spec.training.seed)


def _times(draws: list[Draw], is_held_out: NDArray[numpy.bool_]) -> NDArray[numpy.int32]:
    """How often each row of the train file is in a pass, by its number before rows were held out."""
    times = numpy.zeros(len(is_held_out), numpy.int32)
    times[~is_held_out] = numpy.concatenate([each.times for each in draws])
    return times


def open_data(work: Work) -> Data:
    """The data that `load` has left in the work directory, for example in another process of the pod."""
    rows = Rows.model_validate_json((work.examples / "rows.json").read_bytes())
    train = work.examples / "train.arrow"
    if rows.validation is None:
        return Data(train, None, rows)
    held_out = COUNTS.validate_json((work.examples / VALIDATION_COUNTS).read_bytes())
    return Data(train, work.examples / VALIDATION, rows, held_out.ends)


def _sources(work: Work, spec: FineTuneJobSpec) -> list[Source]:
    files = work.data_files()
    return [
        _source(work, dataset, [file for file in files if file.dataset == index], "datasets[]")
        for index, dataset in enumerate(spec.datasets)
    ]


def _validation_sources(work: Work, spec: FineTuneJobSpec) -> list[Source]:
    files = [file for file in work.data_files() if file.dataset is None and file.evaluation is None]
    return [
        _source(work, dataset, [file for file in files if file.validation == index], "validation.datasets[]")
        for index, dataset in enumerate(spec.validation.separate if spec.validation else [])
    ]


def _source(work: Work, dataset: DatasetSpec, files: list[DataFile], path: str) -> Source:
    listing = next((file.listing for file in files if file.listing), None)
    return Source(dataset, files, path, MediaFiles.read(work.data / listing) if listing else None)


def _questions(work: Work, spec: FineTuneJobSpec) -> Questions | None:
    """The questions that must not be trained on; None without spec.decontaminate."""
    if not spec.decontaminate:
        return None
    files, questions = work.data_files(), Questions()
    for index, dataset in enumerate(spec.decontaminate):
        read_questions(work.data, dataset, [file for file in files if file.evaluation == index], questions)
    return questions


def _summary(train: RowCounts, held_out: RowCounts, validation: bool, draws: list[Draw]) -> Rows:
    dropped = train.dropped + held_out.dropped
    reasons = [DroppedRows(reason=reason, count=count) for reason, count in sorted(dropped.items())]
    return Rows(
        kept=train.kept,
        validation=held_out.kept if validation else None,
        dropped=reasons or None,
        truncated=(train.truncated + held_out.truncated) or None,
        converted=converted_images(train.converted + held_out.converted) or None,
        ignored_keys=ignored_keys(train.ignored + held_out.ignored) or None,
        datasets=[
            DatasetRows(index=index, rows=each.rows, used=each.used, repeated=each.repeated, left=each.left)
            for index, each in enumerate(draws)
        ]
        or None,
    )


def _check_held_out(separate: Sequence[Source], held_out: RowCounts, encoder: Encoder) -> None:
    """Raise RunFailure (EmptyDataset) for a validation data set without a row: it has no loss."""
    if separate and not held_out.kept:
        raise _empty(", ".join(source.dataset.source for source in separate), held_out, encoder)
    for source, start, end in zip(separate, [0, *held_out.ends], held_out.ends, strict=False):
        if start == end:
            message = f"no row of {source.dataset.source} can be validated on"
            raise RunFailure(FailureClass.EMPTY_DATASET, message, "remove the data set, or correct its rows")


def _check_kept(spec: FineTuneJobSpec, train: RowCounts, encoder: Encoder) -> None:
    """Raise RunFailure (EmptyDataset) where there are too few rows to train with."""
    uris, validation = ", ".join(dataset.source for dataset in spec.datasets), spec.validation
    if not train.kept:
        raise _empty(uris, train, encoder, spec.method)
    if validation and validation.fraction and train.kept == 1:
        raise RunFailure(
            FailureClass.EMPTY_DATASET,
            f"1 row of {uris} can be used, and validation.fraction needs 2: a row to train on and a row to hold out",
            "add rows, or remove spec.validation",
        )


def _empty(uri: str, counts: RowCounts, encoder: Encoder, method: Method = Method.SFT) -> RunFailure:
    """The failure of data without a usable row. Its hint lets rows fit that were too long, by more tokens or by smaller images."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.dropped.items()))
    message = f"no row of {uri} can be used: " + (f"dropped {reasons}" if reasons else "there are none")
    if counts.too_long is None:
        return RunFailure(FailureClass.EMPTY_DATASET, message)
    shortest, longest = counts.too_long
    positions = encoder.positions or MAX_LENGTH
    most = min(encoder.most_tokens, MAX_LENGTH, positions - encoder.reserved)
    settable = [length for length in (longest, shortest) if length <= most]
    hint = f"set spec.training.maxLength to {settable[0]} or more" if settable else "split the rows into shorter ones"
    if encoder.reserved and not settable and shortest < min(positions, encoder.most_tokens):
        left = positions - (longest if longest < positions else shortest)
        hint = f"set spec.{method}.maxCompletionLength to {left} or less, and spec.training.maxLength to {positions - left} or more"
    if counts.largest_budget:
        smaller = f"spec.training.maxPixels to {counts.largest_budget} or less"
        hint = f"{hint}, or {smaller}" if settable else f"set {smaller}"
    lengths = f"rows have {_length(shortest, encoder)} to {_length(longest, encoder)} tokens"
    return RunFailure(FailureClass.EMPTY_DATASET, f"{message}; {lengths}, and {encoder.bound}", hint)


def _length(tokens: int, encoder: Encoder) -> str:
    return str(tokens) if tokens <= encoder.most_tokens else f"more than {encoder.most_tokens}"
