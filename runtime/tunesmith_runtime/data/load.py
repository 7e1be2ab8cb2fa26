"""Reads the rows of a run's data sets and encodes them into files of examples.

Each row is kept, or dropped for a reason that is counted, or refused with its file and line.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import DroppedRows, FineTuneJobSpec, Rows
from tunesmith_api.training import Dataset as DatasetSpec
from tunesmith_api.training import Method, RowFormat
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.dataset_rows import dataset_rows
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.example_file import ExampleWriter, move_rows, open_examples, write_examples
from tunesmith_runtime.data.files.place import bad_row
from tunesmith_runtime.data.records import Record
from tunesmith_runtime.data.row_counts import RowCounts, count_ignored, ignored_keys, warn_of_ignored
from tunesmith_runtime.data.row_error import RowError, row_errors
from tunesmith_runtime.data.split import held_out_rows
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import DataFile, Work

if TYPE_CHECKING:
    from datasets import Dataset

    from tunesmith_runtime.data.packing import PackedRows

MAX_LENGTH = 1 << 20
"""The largest training.maxLength."""


@dataclass(frozen=True)
class Data:
    """The examples to train on and those held out, memory-mapped, and what became of the rows."""

    train: Dataset | PackedRows
    validation: Dataset | None
    rows: Rows


@dataclass(frozen=True)
class Learnable:
    """The types of the records that a method learns from."""

    method: Method
    records: Collection[type[Record]]

    def check_format(self, name: RowFormat) -> None:
        """Raise RunFailure (BadSpec) for a format whose rows never yield such a record."""
        if name not in formats.yielding(self.records):
            raise self._refused(f"datasets[].format {name}")

    def check_record(self, record: Record, name: RowFormat) -> None:
        """Raise RunFailure (BadSpec) for a record of another type."""
        if type(record) not in self.records:
            raise self._refused(f"the row is a {type(record).__name__} of format {name}")

    def _refused(self, subject: str) -> RunFailure:
        names = ", ".join(formats.yielding(self.records))
        return RunFailure(
            FailureClass.BAD_SPEC,
            f"{subject}: method {self.method} learns from {names}",
            f"write the rows in one of these formats, and set spec.datasets[].format to its name or to auto: {names}",
        )


def load(work: Work, spec: FineTuneJobSpec, encoder: Encoder, learns_from: Collection[type[Record]]) -> Data:
    """Encode the rows of all data sets in their order, and the validation rows. `learns_from` are the record types that the
    method learns from.

    Raises RunFailure: BadRow with file and line, EmptyDataset, ChatTemplateMissing, BadSpec for rows that the method
    does not learn from, DiskFull.
    """
    rows = RowEncoder(work, encoder, Learnable(spec.method, learns_from))
    train_file, validation_file = work.examples / "train.arrow", work.examples / "validation.arrow"
    validation = spec.validation
    train = rows.encode(list(enumerate(spec.datasets)), train_file)
    held_out = rows.encode(
        [(None, DatasetSpec(uri=validation.uri))] if validation and validation.uri else [], validation_file
    )
    warn_of_ignored("data sets", train.ignored + held_out.ignored)
    _check_kept(spec, train, held_out, encoder)
    if validation and validation.fraction:
        is_held_out = held_out_rows(train.kept, validation.fraction, spec.training.seed)
        move_rows(train_file, is_held_out, validation_file)
        held_out.kept = int(is_held_out.sum())
        train.kept -= held_out.kept
    counts = _summary(train, held_out, validation is not None)
    (work.examples / "rows.json").write_text(json.dumps(counts.to_dict()))
    return open_data(work)


def open_data(work: Work) -> Data:
    """The data that `load` has left in the work directory, for example in another process of the pod."""
    rows = Rows.model_validate_json((work.examples / "rows.json").read_bytes())
    validation = None if rows.validation is None else open_examples(work.examples / "validation.arrow")
    return Data(open_examples(work.examples / "train.arrow"), validation, rows)


@dataclass(frozen=True)
class RowEncoder:
    """Encodes rows of data files."""

    work: Work
    encoder: Encoder
    learnable: Learnable

    def encode(self, datasets: list[tuple[int | None, DatasetSpec]], into: Path) -> RowCounts:
        """Write the examples of data sets into one file. A data set comes with its index in spec.datasets."""
        counts = RowCounts()
        with write_examples(into) as writer:
            for index, dataset in datasets:
                files = [file for file in self.work.data_files() if file.dataset == index]
                self._encode_dataset(dataset, files, writer, counts)
        counts.kept = writer.rows
        return counts

    def _encode_dataset(
        self, dataset: DatasetSpec, files: list[DataFile], writer: ExampleWriter, counts: RowCounts
    ) -> None:
        """Encode the rows of a data set. Its first row decides the format, and maxRows counts over all its files."""
        form = dataset.format
        if form is not RowFormat.AUTO:
            self.learnable.check_format(form)
        rows = dataset_rows(self.work.data, files, dataset.split)
        for file, place, row in islice(rows, dataset.max_rows):
            try:
                with row_errors("cannot be read"):
                    row = formats.rename(row, dataset.columns or {})
                    form = formats.detect(row, _renamed_by(file)) if form is RowFormat.AUTO else form
                    self._encode_row(row, form, writer, counts)
            except RowError as error:
                raise bad_row(file.uri, place, str(error), error.hint) from error
            except RunFailure as failure:
                message = f"{Path(file.uri).name} {place}: {failure.message} ({file.uri})"
                raise RunFailure(failure.failure, message, failure.hint) from failure

    def _encode_row(self, row: dict[str, Any], form: RowFormat, writer: ExampleWriter, counts: RowCounts) -> None:
        """Write the examples of a row, or count it as dropped."""
        record = formats.read(row, form)
        count_ignored(counts.ignored, formats.ignored(row, form))
        if isinstance(record, DropReason):
            return counts.drop(record)
        self.learnable.check_record(record, form)
        examples = self.encoder.examples(record)
        if isinstance(examples, DropReason):
            return counts.drop(examples)
        fitting = self.encoder.fit(examples)
        if isinstance(fitting, DropReason):
            return counts.drop(fitting, max((len(example.input_ids) for example in examples), default=None))
        counts.truncated += self.encoder.is_truncated(record, examples)
        return writer.write(fitting)


def _renamed_by(file: DataFile) -> str:
    """The field or tool that renames the keys of a file's rows: validation.uri has no columns."""
    return "an editor" if file.dataset is None else "datasets[].columns"


def _summary(train: RowCounts, held_out: RowCounts, validation: bool) -> Rows:
    dropped = train.dropped + held_out.dropped
    reasons = [DroppedRows(reason=reason, count=count) for reason, count in sorted(dropped.items())]
    return Rows(
        kept=train.kept,
        validation=held_out.kept if validation else None,
        dropped=reasons or None,
        truncated=(train.truncated + held_out.truncated) or None,
        ignored_keys=ignored_keys(train.ignored + held_out.ignored) or None,
    )


def _check_kept(spec: FineTuneJobSpec, train: RowCounts, held_out: RowCounts, encoder: Encoder) -> None:
    """Raise RunFailure (EmptyDataset) where there are too few rows to train and to validate with."""
    uris, validation = ", ".join(dataset.source for dataset in spec.datasets), spec.validation
    if not train.kept:
        raise _empty(uris, train, encoder)
    if validation and validation.uri and not held_out.kept:
        raise _empty(validation.uri, held_out, encoder)
    if validation and validation.fraction and train.kept == 1:
        raise RunFailure(
            FailureClass.EMPTY_DATASET,
            f"1 row of {uris} can be used, and validation.fraction needs 2: a row to train on and a row to hold out",
            "add rows, or remove spec.validation",
        )


def _empty(uri: str, counts: RowCounts, encoder: Encoder) -> RunFailure:
    """The failure of data without a usable row. Its hint lets rows fit that were too long."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.dropped.items()))
    message = f"no row of {uri} can be used: " + (f"dropped {reasons}" if reasons else "there are none")
    if counts.too_long is None:
        return RunFailure(FailureClass.EMPTY_DATASET, message)
    shortest, longest = counts.too_long
    settable = [length for length in (longest, shortest) if length <= min(encoder.most_tokens, MAX_LENGTH)]
    hint = f"set spec.training.maxLength to {settable[0]} or more" if settable else "split the rows into shorter ones"
    lengths = f"rows have {_length(shortest, encoder)} to {_length(longest, encoder)} tokens"
    return RunFailure(
        FailureClass.EMPTY_DATASET, f"{message}; {lengths}, and training.maxLength is {encoder.max_length}", hint
    )


def _length(tokens: int, encoder: Encoder) -> str:
    return str(tokens) if tokens <= encoder.most_tokens else f"more than {encoder.most_tokens}"
