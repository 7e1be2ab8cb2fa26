"""Reads the data files that fetch left, row by row, and says what became of each row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import Dataset, DroppedRows, FineTuneJobSpec, RowFormat, Rows
from tunesmith_runtime.data.encode import Encoder, Example
from tunesmith_runtime.data.formats import FORMATS, detect, rename
from tunesmith_runtime.data.records import DropReason, RowError, kind_of
from tunesmith_runtime.data.split import split
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.work import DataFile, Work


@dataclass
class Encoded:
    """Rows as examples (a row may give several), and how many were dropped for which reason."""

    rows: list[list[Example]] = field(default_factory=list)
    dropped: Counter[DropReason] = field(default_factory=Counter)


@dataclass(frozen=True)
class Data:
    """What is trained on, what is held out, and what became of the rows."""

    train: list[Example]
    validation: list[Example]
    rows: Rows


def load(work: Work, spec: FineTuneJobSpec, encoder: Encoder) -> Data:
    """All data sets of `spec` in their order, encoded; and the validation rows.

    Raises RunFailure: BadRow with file and line, EmptyDataset, ChatTemplateMissing, BadSpec for a format that the
    method does not learn from.
    """
    trained, held_out = Encoded(), Encoded()
    for index, dataset in enumerate(spec.datasets):
        _read_files(work, [file for file in work.data_files() if file.dataset == index], dataset, encoder, trained)
    validation = spec.validation
    if validation and validation.uri:
        files = [file for file in work.data_files() if file.dataset is None]
        _read_files(work, files, Dataset(uri=validation.uri), encoder, held_out)
    if validation and validation.fraction:
        trained.rows, held_out.rows = split(trained.rows, validation.fraction, spec.training.seed)
    rows = _summary(trained, held_out, validation is not None)
    if not trained.rows:
        raise _empty(", ".join(dataset.uri for dataset in spec.datasets), trained)
    if validation and validation.uri and not held_out.rows:
        raise _empty(validation.uri, held_out)
    return Data(_flat(trained.rows), _flat(held_out.rows), rows)


def read_lines(path: Path, uri: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, row) for each line that is not blank.

    Raises RunFailure (BadRow) with file and line for what is no JSON object in UTF-8.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _parse(line, uri, number)


def bad_row(uri: str, line: int, sentence: str) -> RunFailure:
    """The failure of one line: file name and line first, as that is what one looks for."""
    return RunFailure(FailureClass.BAD_ROW, f"{Path(uri).name} line {line}: {sentence} ({uri})")


def _parse(line: bytes, uri: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise bad_row(uri, number, f"byte {error.start + 1} is not UTF-8; expected JSON lines in UTF-8") from error
    except json.JSONDecodeError as error:
        raise bad_row(
            uri, number, f"column {error.colno} is not JSON: {error.msg}; expected one JSON object on a line"
        ) from error
    if not isinstance(row, dict):
        raise bad_row(uri, number, f"is {kind_of(row)}; expected one JSON object on a line")
    return row


def _read_files(work: Work, files: list[DataFile], dataset: Dataset, encoder: Encoder, into: Encoded) -> None:
    """Encode the rows of the files of one data set; its format is told by the first row, its limit counts over all."""
    if dataset.format not in (RowFormat.AUTO, *FORMATS):
        learned = ", ".join(FORMATS)
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"datasets[].format {dataset.format}: method sft learns from {learned}; use one of them",
        )
    lines = ((file, number, row) for file in files for number, row in read_lines(work.data / file.path, file.uri))
    form = dataset.format
    for file, number, row in islice(lines, dataset.max_rows):
        try:
            row = rename(row, dataset.columns or {})
            form = detect(row) if form is RowFormat.AUTO else form
            record = FORMATS[form].read(row)
            encoded = record if isinstance(record, DropReason) else encoder.encode(record)
        except RowError as error:
            raise bad_row(file.uri, number, str(error)) from error
        if isinstance(encoded, DropReason):
            into.dropped[encoded] += 1
        else:
            into.rows.append(encoded)


def _summary(trained: Encoded, held_out: Encoded, validation: bool) -> Rows:
    dropped = trained.dropped + held_out.dropped
    reasons = [DroppedRows(reason=reason, count=count) for reason, count in sorted(dropped.items())]
    return Rows(kept=len(trained.rows), validation=len(held_out.rows) if validation else None, dropped=reasons or None)


def _empty(uri: str, encoded: Encoded) -> RunFailure:
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(encoded.dropped.items()))
    return RunFailure(
        FailureClass.EMPTY_DATASET, f"no row of {uri} can be used: " + (f"dropped {why}" if why else "there are none")
    )


def _flat(rows: list[list[Example]]) -> list[Example]:
    return [example for row in rows for example in row]
