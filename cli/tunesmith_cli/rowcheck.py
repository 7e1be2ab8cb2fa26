"""Reads the rows of a job's data sets with the code of the training, and reports what becomes of each.

With the model's tokenizer the rows are encoded as the training encodes them. Without it they are read by their formats alone, so
that neither lengths nor the chat template are checked. Of large files on a hub or a web server the first rows are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith_api.datasets import BadRows, Dataset
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.refusal import Refusal
from tunesmith_cli.remote_rows import find_rows
from tunesmith_cli.sources import NotKnown, cause_of, check_readable, is_of_this_machine
from tunesmith_runtime.data.contamination import Questions, read_questions
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.dropped_rows import DropLog
from tunesmith_runtime.data.encoders.multimodal import NeedsProcessor
from tunesmith_runtime.data.encoders.rated import RATED
from tunesmith_runtime.data.encoding import Encoding, Known, Tokens, needs_no_tokens
from tunesmith_runtime.data.example_file import RowWriter, open_columns, write_examples
from tunesmith_runtime.data.examples import Example
from tunesmith_runtime.data.files import ending_of
from tunesmith_runtime.data.files.jsonl import JSONL
from tunesmith_runtime.data.records import Record
from tunesmith_runtime.data.row_counts import RowCounts
from tunesmith_runtime.data.row_encoder import (
    MAX_BAD_SHARE,
    DatasetEncoder,
    RecordEncoder,
    RowEncoder,
    Source,
)
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.data import Data, DataSource
from tunesmith_runtime.fetch.row_count import WHOLE_BYTES as REMOTE_BYTES
from tunesmith_runtime.fetch.row_sample import (
    SAMPLE_BYTES,
    RemoteFile,
    sample_file,
    write_lines,
    write_start,
)
from tunesmith_runtime.storage import Storage
from tunesmith_runtime.storage.files import path_of
from tunesmith_runtime.train.methods import METHODS
from tunesmith_runtime.workdir import DataFile, Work

EXAMPLES = "examples.arrow"
"""Name of the file with the examples of the training rows."""


@dataclass(frozen=True)
class FormatsOnly:
    """Stands for an encoder where the tokenizer is not known: every record is kept, with no tokens but the number that belongs to it."""

    bound: str
    """See `TextEncoder.bound`."""

    def tokenize(self, texts: Sequence[str], known: Known) -> Sequence[Tokens]:
        """Return no tokens."""
        return [[] for _ in texts]

    def examples(self, record: Record) -> Encoding[list[Example] | DropReason]:
        """Return an example without tokens for a rated record, and none for others."""
        is_rated = type(record) in RATED
        return needs_no_tokens([Example([], [], value=RATED[type(record)](record).value)] if is_rated else [])

    def fit(self, examples: list[Example]) -> list[Example] | DropReason:
        """Return the examples."""
        return examples

    def is_truncated(self, record: Record, examples: list[Example]) -> bool:
        """Return False: the length is not known."""
        return False

    def largest_budget(self, examples: list[Example]) -> int | None:
        """Return None: no row is too long."""
        return None


@dataclass
class Counter:
    """Counts the validation rows in the place of a writer of examples."""

    rows: int = 0

    def write(self, examples: Sequence[Example]) -> None:
        """Count a row."""
        self.rows += 1


@dataclass(frozen=True)
class DatasetReport:
    """What becomes of the rows of a data set."""

    field: str
    """Its field, below spec."""
    source: str
    unknown: str | None = None
    """Why the rows cannot be read from here."""
    sampled: bool = False
    """Whether only the first rows were read."""
    kept: int = 0
    truncated: int = 0
    dropped: Mapping[str, int] | None = None
    """Number of rows by reason."""
    ignored: Mapping[str, int] | None = None
    """Number of rows that have a key which is not read."""
    examples: Sequence[Mapping[str, Any]] = ()
    """The first dropped rows of each reason."""
    failure: Refusal | None = None
    """Why the job would fail at this data set."""

    @property
    def rows(self) -> int:
        """Rows that were read."""
        return self.kept + sum((self.dropped or {}).values())


def check_rows(spec: FineTuneJobSpec, storage: Storage, encoder: RecordEncoder, scratch: Path) -> list[DatasetReport]:
    """Read the rows of a job. Raises NotKnown for a method that this version does not have."""
    if spec.method not in METHODS:
        raise NotKnown(f"method {spec.method} is not available, so the rows are not read")
    counting = spec.model_copy(update={"on_bad_row": BadRows.DROP, "max_bad_share": 1.0})
    method = METHODS[spec.method]
    run = RowEncoder(Work(scratch), encoder, method.learnable(spec, Work(scratch)), counting)
    held_out = spec.validation.separate if spec.validation else []
    is_uri = bool(spec.validation and spec.validation.uri)
    # The validation rows first, as in the training: a training row that repeats one of them is the duplicate.
    validation = [
        _check(
            run,
            spec,
            storage,
            each,
            "validation.uri" if is_uri else f"validation.datasets[{index}]",
            scratch,
            Counter(),
        )
        for index, each in enumerate(held_out)
    ]
    evaluations, questions = _read_evaluations(spec, storage, scratch)
    run = replace(run, questions=questions)
    with write_examples(scratch / EXAMPLES) as writer:
        train = [
            _check(run, spec, storage, each, f"datasets[{index}]", scratch, writer)
            for index, each in enumerate(spec.datasets)
        ]
    return train + validation + evaluations


def _read_evaluations(
    spec: FineTuneJobSpec, storage: Storage, scratch: Path
) -> tuple[list[DatasetReport], Questions | None]:
    """Read the questions that must not be trained on: those that can be read from here, and a report of each data set that cannot."""
    reports, questions = list[DatasetReport](), Questions()
    for index, dataset in enumerate(spec.decontaminate or ()):
        field = f"decontaminate[{index}]"
        try:
            check_readable(dataset)
            source = DataSource.of_evaluation(dataset)
            files, _ = _local_files(storage, find_rows(storage, source), scratch / field)
            read_questions(scratch, dataset, files, questions)
        except NotKnown as error:
            reports.append(DatasetReport(field, dataset.source, unknown=str(error)))
        except RunFailure as error:
            if is_of_this_machine(error):
                reports.append(DatasetReport(field, dataset.source, unknown=cause_of(error)))
            else:
                reports.append(DatasetReport(field, dataset.source, failure=refusal_of(error)))
    return reports, questions if spec.decontaminate else None


def _check(
    run: RowEncoder,
    spec: FineTuneJobSpec,
    storage: Storage,
    dataset: Dataset,
    field: str,
    scratch: Path,
    writer: RowWriter,
) -> DatasetReport:
    """Read the rows of a data set, and write their examples."""
    is_validation = field.startswith("validation")
    source = DataSource.of_validation(dataset) if is_validation else DataSource.of(dataset)
    counts, dropped, before = RowCounts(), DropLog(), writer.rows
    one = replace(run, dropped=dropped)
    failure, sampled = None, False
    try:
        check_readable(dataset)
        data = find_rows(storage, source)
        files, sampled = _local_files(storage, data, scratch / field)
        path = "validation.datasets[]" if is_validation else "datasets[]"
        DatasetEncoder(one, Source(dataset, files, path, data.media_files(storage)), writer, counts).encode()
    except NotKnown as error:
        return DatasetReport(field, dataset.source, unknown=str(error))
    except RunFailure as error:
        if isinstance(error.__cause__, NeedsProcessor):
            cause = error.__cause__
            return DatasetReport(field, dataset.source, unknown=f"{cause.message}; {cause.hint}")
        if is_of_this_machine(error):
            return DatasetReport(field, dataset.source, unknown=cause_of(error))
        failure = refusal_of(error)
    bad, kept = counts.dropped[DropReason.BAD_ROW], writer.rows - before
    return DatasetReport(
        field,
        dataset.source,
        sampled=sampled,
        kept=kept,
        truncated=counts.truncated,
        dropped=dict(sorted(counts.dropped.items())),
        ignored=dict(counts.ignored.most_common()),
        examples=dropped.examples,
        failure=failure or _too_many_bad(spec, field, bad, kept + counts.dropped.total(), sampled),
    )


def _local_files(storage: Storage, data: Data, folder: Path) -> tuple[list[DataFile], bool]:
    """The files of a data set: local files where they are, others downloaded into `folder`; and whether they hold the first rows only,
    as of large files on a hub or a web server."""
    if data.origin and data.size_bytes > REMOTE_BYTES and not data.captions():
        return [_first_rows(storage, data, folder)], True
    files: list[DataFile] = []
    captions = data.captions()
    for number, (uri, entry) in enumerate(data.rows()):
        if uri.startswith("file://"):
            path = path_of(uri)
        else:
            path = folder / f"{number:04d}{ending_of(uri)}"
            (data.origin or storage).download(uri, path, entry)
        files.append(DataFile(path=str(path.absolute()), uri=uri, caption_of=captions.get(entry.path)))
    return files, False


def _first_rows(storage: Storage, data: Data, folder: Path) -> DataFile:
    """The first rows of the first file of a data set. JSON lines keep their places, and their bad rows; other rows that can be read are
    written as JSON lines."""
    uri, entry = data.rows()[0]
    file, wanted = RemoteFile(storage, data, uri, entry), min(SAMPLE_BYTES, entry.size_bytes)
    path = (folder / "first.jsonl").absolute()
    if uri.endswith(JSONL.endings):
        write_start(file, wanted, path)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_lines(sample_file(file, wanted, folder).rows, path)
    return DataFile(path=str(path), uri=uri)


def _too_many_bad(spec: FineTuneJobSpec, field: str, bad: int, rows: int, sampled: bool) -> Refusal | None:
    """Return the failure of a job with `bad` bad rows among `rows` of a data set, of which these may be the first ones only."""
    if bad and spec.on_bad_row is BadRows.FAIL:
        of = f"of the first {rows}" if sampled else f"of {rows}"
        return Refusal(
            f"BadRow: {bad} {of} rows of {field} are bad, and onBadRow is Fail",
            "correct the rows, or set spec.onBadRow: Drop",
        )
    most = MAX_BAD_SHARE if spec.max_bad_share is None else spec.max_bad_share
    if bad > most * rows and not sampled:
        return Refusal(
            f"BadRow: {bad} of {rows} rows of {field} are bad, and maxBadShare is {most:g}",
            "correct the rows, or raise spec.maxBadShare",
        )
    return None


def refusal_of(failure: RunFailure) -> Refusal:
    """Return a failure of the training as a refusal."""
    return Refusal(f"{failure.failure}: {failure.message}", failure.hint or "")


def unlearnable_rows(spec: FineTuneJobSpec, reports: Sequence[DatasetReport], scratch: Path) -> list[Refusal]:
    """Return why the method cannot learn from the training rows as a whole, where all were read without a failure by `check_rows`."""
    if any(each.unknown or each.failure or each.sampled for each in reports if each.field.startswith("datasets")):
        return []
    try:
        METHODS[spec.method].check_rows(spec, open_columns(scratch / EXAMPLES))
    except RunFailure as error:
        return [refusal_of(error)]
    return []


def missing_rows(spec: FineTuneJobSpec, reports: Sequence[DatasetReport]) -> list[Refusal]:
    """Return why the job would fail for lack of rows, where all data sets of a kind were read without a failure."""
    found: list[Refusal] = []
    for prefix in ("datasets", "validation"):
        kind = [each for each in reports if each.field.startswith(prefix)]
        if not kind or any(each.unknown or each.failure or each.sampled for each in kind):
            continue
        kept = sum(each.kept for each in kind)
        names = ", ".join(each.source for each in kind)
        if not kept:
            found.append(Refusal(f"EmptyDataset: no row of {names} can be used", "correct the rows"))
        elif prefix == "datasets" and kept == 1 and spec.validation and spec.validation.fraction:
            message = f"EmptyDataset: 1 row of {names} can be used, and validation.fraction needs 2"
            found.append(Refusal(message, "add rows, or remove spec.validation"))
        elif prefix == "datasets":
            found += [
                Refusal(f"EmptyDataset: no row of {each.source} can be used", f"remove spec.{each.field}")
                for each, dataset in zip(kind, spec.datasets, strict=True)
                if dataset.weight is not None and not each.kept
            ]
    return found
