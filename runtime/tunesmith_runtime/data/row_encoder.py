"""Encodes the rows of data sets. Each row is kept, or dropped for a reason that is counted, or refused with its file and line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import compress, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tunesmith_api.datasets import BadRows, Dataset, Droppable, RowFormat
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import METHOD_FACTS, Method
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.contamination import Questions
from tunesmith_runtime.data.dataset_rows import dataset_rows
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.dropped_rows import FILE, DropLog
from tunesmith_runtime.data.duplicates import Digests, digest_of
from tunesmith_runtime.data.encoding import Encoding, Tokenize, complete_all
from tunesmith_runtime.data.example_file import RowWriter, write_examples
from tunesmith_runtime.data.examples import Example
from tunesmith_runtime.data.files.place import Place, bad_row
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.template import template_format
from tunesmith_runtime.data.media_files import MediaFiles, has_media, resolved
from tunesmith_runtime.data.mixing import sample_mask
from tunesmith_runtime.data.records import Conversation, Record
from tunesmith_runtime.data.row_counts import Reading, RowCounts, count_ignored
from tunesmith_runtime.data.row_error import RowError, row_errors
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import DataFile, Work

MAX_BAD_SHARE = 0.1
"""Default of maxBadShare."""
NAMED = 3
"""Bad rows that a failure names."""
SHARE_ROWS = 10_000
"""Rows after which the share of bad ones is compared with maxBadShare where rows are streamed: their number is not known."""


@dataclass(frozen=True)
class Learnable:
    """The records that a method learns from."""

    method: Method
    records: Collection[type[Record]]
    """Their types."""
    check: Callable[[Record], None] = lambda _: None
    """Raises RowError for a record that cannot be learned from with the settings of the job."""
    scales: bool = False
    """Whether the method learns answers with weights other than 0 and 1."""

    def check_format(self, row_format: Format, subject: str) -> None:
        """Raise RunFailure (BadSpec) for a format whose rows never yield such a record. `subject` names the format."""
        if row_format.records.isdisjoint(self.records):
            raise self._refused(subject)

    def check_record(self, record: Record, row_format: Format) -> None:
        """Raise RunFailure (BadSpec) for a record of another type, and RowError for one that cannot be learned from."""
        if type(record) not in self.records:
            raise self._refused(f"the row is a {type(record).__name__} of format {row_format.name}")
        if has_media(record) and not METHOD_FACTS[self.method].reads_images:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"the row has images, and method {self.method} learns from text alone in this version",
                "remove the images from the rows, or use method sft",
            )
        if isinstance(record, Conversation) and record.is_scaled and not self.scales:
            message = f"has a message of a weight other than 0 and 1, which method {self.method} does not learn with"
            raise RowError(message, "write weight 0 or 1, or remove the key")
        self.check(record)

    def _refused(self, subject: str) -> RunFailure:
        names = ", ".join(formats.yielding(self.records))
        return RunFailure(
            FailureClass.BAD_SPEC,
            f"{subject}: method {self.method} learns from {names}",
            f"write the rows in one of these formats, and set spec.datasets[].format to its name or to auto: {names}",
        )


@dataclass(frozen=True)
class Source:
    """A data set with its files."""

    dataset: Dataset
    files: list[DataFile]
    path: str
    """Path of the field that holds the data set, below spec."""
    media: MediaFiles | None = None
    """The files that rows may name; None where they are not listed."""

    @property
    def is_held_out(self) -> bool:
        """Whether the rows are validated on."""
        return self.path.startswith("validation")


class RecordEncoder(Protocol):
    """Encodes records, as `encode.Encoder` does."""

    @property
    def bound(self) -> str:
        """What bounds the length of a row, for messages."""
        ...

    @property
    def tokenize(self) -> Tokenize:
        """Returns the tokens of texts."""
        ...

    def examples(self, record: Record) -> Encoding[list[Example] | DropReason]:
        """The examples of a record in full length."""
        ...

    def fit(self, examples: list[Example]) -> list[Example] | DropReason:
        """The examples as they are learned."""
        ...

    def is_truncated(self, record: Record, examples: list[Example]) -> bool:
        """Whether a record is trained on in part or in pieces."""
        ...

    def largest_budget(self, examples: list[Example]) -> int | None:
        """The largest training.maxPixels with which examples that are too long fit; None where there is none."""
        ...


@dataclass(frozen=True)
class RowEncoder:
    """Encodes rows of data files."""

    work: Work
    encoder: RecordEncoder
    learnable: Learnable
    spec: FineTuneJobSpec
    dropped: DropLog = field(default_factory=DropLog)
    questions: Questions | None = None
    """Questions that no training row may have."""
    _digests: Digests = field(default_factory=Digests)
    """Of the rows that are kept, to drop duplicates."""

    def encode(self, sources: list[Source], into: Path) -> RowCounts:
        """Write the examples of data sets into one file."""
        counts = RowCounts()
        with write_examples(into) as writer:
            self.encode_to(sources, writer, counts)
        counts.kept = writer.rows
        return counts

    def encode_to(self, sources: list[Source], writer: RowWriter, counts: RowCounts) -> None:
        """Write the examples of data sets and count their rows, continuing at the position in `counts`."""
        for index in range(counts.reading.dataset, len(sources)):
            DatasetEncoder(self, sources[index], writer, counts).encode()
            counts.ends.append(writer.rows)
            counts.reading = Reading(index + 1)

    def is_duplicate(self, record: Record) -> bool:
        """Whether spec.drop has Duplicate and an earlier record is equal. Remembers the record."""
        return Droppable.DUPLICATE in (self.spec.drop or ()) and not self._digests.add(digest_of(record))


def characters_of(row: Any) -> int:
    """About the number of characters of a row."""
    if isinstance(row, str):
        return len(row)
    if isinstance(row, dict):
        return sum(map(characters_of, row.values()))
    return sum(map(characters_of, row)) if isinstance(row, list) else 1


class Encoded(NamedTuple):
    """A row with its columns renamed, its keys that are not read, and its examples or why it is dropped."""

    row: dict[str, Any]
    ignored: set[str]
    record: Record | DropReason
    examples: list[Example] | DropReason


class DatasetEncoder:
    """Encodes the rows of a data set. Its first readable row decides the format, and maxRows counts over all its files."""

    def __init__(self, run: RowEncoder, source: Source, writer: RowWriter, counts: RowCounts) -> None:
        self._run, self._source, self._writer, self._counts = run, source, writer, counts
        self._reading = counts.reading
        self._format = formats.FORMATS[RowFormat(self._reading.format)] if self._reading.format else self._declared()

    def encode(self) -> None:
        """Encode, drop or refuse each row. Raises RunFailure."""
        rows = (
            ((file, place, row), characters_of(row), self._encoding(row, file)) for file, place, row in self._chosen()
        )
        with closing(complete_all(rows, self._run.encoder.tokenize)) as completed:
            for (file, place, row), encoded in completed:
                self._reading.rows += 1
                try:
                    with row_errors("cannot be read"):
                        self._settle(encoded.result(), file, place)
                except RowError as error:
                    self._refuse(bad_row(file.uri, place, str(error), error.hint), file, place, row, error)
                except RunFailure as failure:
                    message = f"{Path(file.uri).name} {place}: {failure.message} ({file.uri})"
                    raise RunFailure(failure.failure, message, failure.hint) from failure
                if self._run.spec.training.streaming and self._reading.rows % SHARE_ROWS == 0:
                    self._check_share()
        self._check_share()

    def _declared(self) -> Format | None:
        """The format that the spec declares; None if the first row decides."""
        dataset, learnable = self._source.dataset, self._run.learnable
        if dataset.template is not None:
            subject = f"{self._source.path}.template"
            declared = template_format(dataset.template, subject)
        elif dataset.format is RowFormat.AUTO:
            return None
        else:
            declared, subject = formats.FORMATS[dataset.format], f"{self._source.path}.format {dataset.format}"
        learnable.check_format(declared, subject)
        return declared

    def _rows(self) -> Iterator[tuple[DataFile, Place, dict[str, Any] | RowError]]:
        return dataset_rows(self._run.work.data, self._source.files, self._source.dataset.split)

    def _chosen(self) -> Iterator[tuple[DataFile, Place, dict[str, Any] | RowError]]:
        """The rows that maxRows and sample choose, but those that were read before."""
        dataset, read = self._source.dataset, self._reading.rows
        if not dataset.sample or dataset.max_rows is None:
            return islice(self._rows(), read, dataset.max_rows)
        count = sum(1 for _ in self._rows())
        mask = sample_mask(count, dataset.max_rows, self._run.spec.training.seed)
        return islice(compress(self._rows(), mask), read, None)

    def _encoding(self, row: dict[str, Any] | RowError, file: DataFile) -> Encoding[Encoded]:
        """Read a row, and encode it in full length."""
        with row_errors("cannot be read"):
            if isinstance(row, RowError):
                raise row
            run = self._run
            row = formats.rename(row, self._source.dataset.columns or {})
            if self._format is None:
                found = formats.detect(row, run.learnable.records, self._renamed_by())
                run.learnable.check_format(found, f"the row is of format {found.name}")
                self._format = found
                self._reading.format = found.name
            record, ignored = formats.read(row, self._format), formats.ignored(row, self._format)
            if isinstance(record, DropReason):
                return Encoded(row, ignored, record, [])
            run.learnable.check_record(record, self._format)
            record = resolved(record, self._source.media, file.uri)
            return Encoded(row, ignored, record, (yield from run.encoder.examples(record)))

    def _settle(self, encoded: Encoded, file: DataFile, place: Place) -> None:
        """Write the examples of a row, or count it as dropped."""
        run, counts, row, record, examples = self._run, self._counts, encoded.row, encoded.record, encoded.examples
        count_ignored(counts.ignored, encoded.ignored)
        if isinstance(record, DropReason):
            return self._drop(record, file, place, row)
        if isinstance(examples, DropReason):
            return self._drop(examples, file, place, row)
        fitting = run.encoder.fit(examples)
        if isinstance(fitting, DropReason):
            tokens = max((len(each.input_ids) for each in examples), default=None)
            return self._drop(fitting, file, place, row, tokens, budget=run.encoder.largest_budget(examples))
        if run.questions and not self._source.is_held_out and (common := run.questions.find_in(record)):
            return self._drop(DropReason.CONTAMINATED, file, place, row, sentence=f"shares with a question: {common}")
        if run.is_duplicate(record):
            return self._drop(DropReason.DUPLICATE, file, place, row)
        counts.truncated += run.encoder.is_truncated(record, examples)
        images = max((example.images for example in fitting), key=len, default=())  # examples begin with the same ones
        counts.converted.update(str(each) for image in images for each in image.conversions)
        return self._writer.write(fitting)

    def _drop(
        self,
        reason: DropReason,
        file: DataFile,
        place: Place,
        row: dict[str, Any],
        tokens: int | None = None,
        sentence: str | None = None,
        budget: int | None = None,
    ) -> None:
        self._counts.drop(reason, tokens, budget)
        sentence = f"has {tokens} tokens, and {self._run.encoder.bound}" if tokens else sentence
        self._run.dropped.add(reason, file.uri, place, row, sentence)

    def _refuse(self, failure: RunFailure, file: DataFile, place: Place, row: Any, error: RowError) -> None:
        """Count a bad row. Raises `failure` unless onBadRow is Drop."""
        if self._run.spec.on_bad_row is BadRows.FAIL:
            raise failure from error
        self._reading.bad += 1
        if self._reading.bad <= NAMED:
            self._reading.first_bad.append(failure.message)
        self._counts.drop(DropReason.BAD_ROW)
        self._run.dropped.add(DropReason.BAD_ROW, file.uri, place, "" if row is error else row, str(error), error.hint)

    def _check_share(self) -> None:
        """Raise RunFailure (BadRow) if more rows of the data set are bad than maxBadShare allows."""
        most = MAX_BAD_SHARE if self._run.spec.max_bad_share is None else self._run.spec.max_bad_share
        reading = self._reading
        if reading.bad > most * reading.rows:
            raise RunFailure(
                FailureClass.BAD_ROW,
                f"{reading.bad} of {reading.rows} rows of {self._source.dataset.source} are bad, and maxBadShare is {most:g}; "
                f"the first: {'; '.join(reading.first_bad)}",
                f"correct the rows (the run's folder has the first ones in {FILE}), or raise spec.maxBadShare",
            )

    def _renamed_by(self) -> str:
        """The field or tool that renames the keys of the rows: validation.uri has no columns."""
        validation = self._run.spec.validation
        is_uri = self._source.is_held_out and validation is not None and validation.uri is not None
        return "an editor" if is_uri else f"{self._source.path}.columns"
