"""Reads the data files that fetch left, row by row, and says what became of each row."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import Dataset, DroppedRows, FineTuneJobSpec, IgnoredKey, Method, RowFormat, Rows
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.examples import Example
from tunesmith_runtime.data.lines import bad_row, read_lines
from tunesmith_runtime.data.records import DropReason, Record, RowError, row_errors
from tunesmith_runtime.data.split import split
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import DataFile, Work

log = logging.getLogger(__name__)

MAX_KEYS = 8
"""Ignored keys that status names; more are counted together. They must fit into a termination message."""
OTHER_KEYS = "(others)"
MAX_DISTINCT = 1000
"""Number of distinct ignored keys that are counted by name; all others count as one."""
MAX_LENGTH = 1 << 20
"""The largest training.maxLength."""


@dataclass
class Encoded:
    """Rows as examples (a row may give several), how many were dropped for which reason, and the keys that were not read."""

    rows: list[list[Example]] = field(default_factory=list)
    dropped: Counter[DropReason] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    too_long: list[int] = field(default_factory=list)
    """Tokens of the longest example of each row that did not fit."""


@dataclass(frozen=True)
class Data:
    """What is trained on, what is held out, and what became of the rows."""

    train: list[Example]
    validation: list[Example]
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
    """All data sets of `spec` in their order, encoded; and the validation rows. `learns_from` are the types of records
    that the method learns from.

    Raises RunFailure: BadRow with file and line, EmptyDataset, ChatTemplateMissing, BadSpec for rows that the method
    does not learn from.
    """
    trained, held_out = Encoded(), Encoded()
    learnable = Learnable(spec.method, learns_from)
    for index, dataset in enumerate(spec.datasets):
        files = [file for file in work.data_files() if file.dataset == index]
        _read_files(work, files, dataset, encoder, learnable, trained)
    validation = spec.validation
    if validation and validation.uri:
        files = [file for file in work.data_files() if file.dataset is None]
        _read_files(work, files, Dataset(uri=validation.uri), encoder, learnable, held_out)
    if validation and validation.fraction:
        trained.rows, held_out.rows = split(trained.rows, validation.fraction, spec.training.seed)
    rows = _summary(trained, held_out, validation is not None)
    warn_of_ignored("data sets", trained.ignored + held_out.ignored)
    if not trained.rows:
        raise _empty(", ".join(dataset.uri for dataset in spec.datasets), trained, encoder)
    if validation and validation.uri and not held_out.rows:
        raise _empty(validation.uri, held_out, encoder)
    if validation and validation.fraction and not held_out.rows:
        raise RunFailure(
            FailureClass.EMPTY_DATASET,
            f"1 row of {', '.join(dataset.uri for dataset in spec.datasets)} can be used, and validation.fraction needs 2: "
            "one to learn from and one to hold out",
            "add rows, or remove spec.validation",
        )
    return Data(_flat(trained.rows), _flat(held_out.rows), rows)


def _read_files(
    work: Work, files: list[DataFile], dataset: Dataset, encoder: Encoder, learnable: Learnable, into: Encoded
) -> None:
    """Encode the rows of the files of one data set. Its first row decides the format, its limit counts over all files."""
    if dataset.format is not RowFormat.AUTO:
        learnable.check_format(dataset.format)
    lines = ((file, number, row) for file in files for number, row in read_lines(work.data / file.path, file.uri))
    form = dataset.format
    for file, number, row in islice(lines, dataset.max_rows):
        try:
            with row_errors("can't be read"):
                row = formats.rename(row, dataset.columns or {})
                form = formats.detect(row, _renamed_by(file)) if form is RowFormat.AUTO else form
                _encode(row, form, encoder, learnable, into)
        except RowError as error:
            raise bad_row(file.uri, number, str(error), error.hint) from error
        except RunFailure as failure:
            message = f"{Path(file.uri).name} line {number}: {failure.message} ({file.uri})"
            raise RunFailure(failure.failure, message, failure.hint) from failure


def _renamed_by(file: DataFile) -> str:
    """What renames the keys of a file's rows: validation.uri has no columns."""
    return "an editor" if file.dataset is None else "datasets[].columns"


def _encode(row: dict[str, Any], form: RowFormat, encoder: Encoder, learnable: Learnable, into: Encoded) -> None:
    """Add the row to the examples, or count it as dropped."""
    record = formats.read(row, form)
    if not isinstance(record, DropReason):
        learnable.check_record(record, form)
    count_ignored(into.ignored, formats.ignored(row, form))
    examples = record if isinstance(record, DropReason) else encoder.examples(record)
    encoded = examples if isinstance(examples, DropReason) else encoder.fit(examples)
    if not isinstance(encoded, DropReason):
        into.rows.append(encoded)
        return
    into.dropped[encoded] += 1
    if not isinstance(examples, DropReason) and examples:
        into.too_long.append(max(len(example.input_ids) for example in examples))


def _summary(trained: Encoded, held_out: Encoded, validation: bool) -> Rows:
    dropped = trained.dropped + held_out.dropped
    reasons = [DroppedRows(reason=reason, count=count) for reason, count in sorted(dropped.items())]
    return Rows(
        kept=len(trained.rows),
        validation=len(held_out.rows) if validation else None,
        dropped=reasons or None,
        ignored_keys=ignored_keys(trained.ignored + held_out.ignored) or None,
    )


def ignored_keys(counts: Counter[str]) -> list[IgnoredKey]:
    """The keys that are not read, the most frequent first; what is beyond MAX_KEYS is one entry."""
    ordered = _ordered(counts)
    if len(ordered) > MAX_KEYS:
        named = [entry for entry in ordered if entry[0] != OTHER_KEYS][: MAX_KEYS - 1]
        ordered = [*named, (OTHER_KEYS, counts.total() - sum(count for _, count in named))]
    return [IgnoredKey(key=key, count=count) for key, count in ordered]


def count_ignored(counts: Counter[str], keys: Iterable[str]) -> None:
    """Count the keys of a row that are not read. The number of names is bounded, as keys may be data."""
    for key in {f"{key:.60}" for key in keys}:
        counts[key if key in counts or len(counts) < MAX_DISTINCT else OTHER_KEYS] += 1


def warn_of_ignored(uri: str, counts: Counter[str]) -> None:
    """Name keys that are not read in the log."""
    if counts:
        shown = ", ".join(f"{key} ({count} rows)" for key, count in _ordered(counts)[:100])
        log.warning("%s: keys that are not read: %s", uri, shown)


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def _empty(uri: str, encoded: Encoded, encoder: Encoder) -> RunFailure:
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(encoded.dropped.items()))
    what = f"no row of {uri} can be used: " + (f"dropped {why}" if why else "there are none")
    if not encoded.too_long:
        return RunFailure(FailureClass.EMPTY_DATASET, what)
    shortest, longest = (_length(extreme(encoded.too_long), encoder) for extreme in (min, max))
    known = [length for length in encoded.too_long if length <= min(encoder.most_tokens, MAX_LENGTH)]
    best = (max if len(known) == len(encoded.too_long) else min)(known, default=None)
    hint = f"set spec.training.maxLength to {best} or more" if best else "split the rows into shorter ones"
    lengths = f"rows have {shortest} to {longest} tokens, and training.maxLength is {encoder.max_length}"
    return RunFailure(FailureClass.EMPTY_DATASET, f"{what}; {lengths}", hint)


def _length(tokens: int, encoder: Encoder) -> str:
    return str(tokens) if tokens <= encoder.most_tokens else f"more than {encoder.most_tokens}"


def _flat(rows: list[list[Example]]) -> list[Example]:
    return [example for row in rows for example in row]
