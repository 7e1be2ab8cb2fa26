"""Users' rows in the form and place where EvalScope reads them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from tunesmith_api.evaljob import PICTURE_TYPES, Benchmark, BenchmarkDataset
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.dataset_rows import dataset_rows
from tunesmith_runtime.data.files import of_one_type, stem_of
from tunesmith_runtime.data.files.place import bad_row
from tunesmith_runtime.data.media_files import MediaFiles
from tunesmith_runtime.data.row_counts import count_ignored, warn_of_ignored
from tunesmith_runtime.data.row_error import RowError, row_errors
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.evaluate.box_text import BoxText
from tunesmith_runtime.evaluate.picture_rows import PictureRows
from tunesmith_runtime.evaluate.pictures import Pictures, ReadBytes
from tunesmith_runtime.evaluate.rows import Row, converter
from tunesmith_runtime.workdir import DataFile, Work

DEFAULT = "default"
"""EvalScope's name of the only subset."""

Convert = Callable[[Row, DataFile], tuple[Row, set[str]]]
"""From a row and its file to the row for EvalScope, and the keys that are not read. It raises RowError."""


@dataclass(frozen=True)
class OwnRows:
    """The rows of a benchmark."""

    benchmark: Benchmark
    dataset: BenchmarkDataset
    work: Work
    read_bytes: ReadBytes
    """Reads the pictures."""
    trust_remote_code: bool = False

    def write(self) -> dict[str, Any]:
        """Convert the rows to files of EvalScope, and return its arguments for them.

        Raises RunFailure: BadRow with file and line, EmptyDataset, DatasetNotFound for a missing subset, BadSpec.
        """
        benchmark, uri = self.benchmark, self.dataset.source
        self._target.mkdir(parents=True, exist_ok=True)
        subsets, unread = [], Counter[str]()
        rows = islice(self._converted(self._files(), unread), benchmark.limit)
        for subset, group in groupby(rows, key=itemgetter(0)):
            subsets.append(subset)
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for _, row in group)
            (self._target / f"{subset}.jsonl").write_text(text, encoding="utf-8")
        warn_of_ignored(uri, unread)
        if not subsets:
            raise RunFailure(FailureClass.EMPTY_DATASET, f"benchmark {benchmark.name}: there is no row in {uri}")
        return {"local_path": str(self._target), "subset_list": subsets}

    @property
    def _target(self) -> Path:
        return self.work.benchmarks / ".evalscope" / self.benchmark.name

    def _converted(self, files: list[DataFile], unread: Counter[str]) -> Iterator[tuple[str, Row]]:
        """Yield subset and converted row; count keys that are not read in `unread`."""
        convert = self._converter()
        is_single = len(files) == 1 and self.benchmark.subsets is None
        for file, place, row in dataset_rows(folder_of(self.benchmark, self.work), files, self.dataset.split):
            try:
                with row_errors("cannot be read"):
                    if isinstance(row, RowError):
                        raise row
                    converted, ignored = convert(row, file)
                    count_ignored(unread, ignored)
            except RowError as error:
                raise bad_row(file.uri, place, str(error), error.hint) from error
            yield DEFAULT if is_single or file.caption_of else stem_of(file.path), converted

    def _converter(self) -> Convert:
        if self.dataset.type not in PICTURE_TYPES:
            convert_text = converter(self.dataset)
            return lambda row, _: convert_text(row)
        pictures = Pictures(self.read_bytes, self._target / "pictures")
        rows = PictureRows(self.dataset, pictures, BoxText(self.work.model(), self.trust_remote_code))
        listing = self.work.benchmark_media(self.benchmark.name)
        files = MediaFiles.read(listing) if listing.exists() else None
        return lambda row, file: rows.convert(row, files, file.uri)

    def _files(self) -> list[DataFile]:
        """Return the files of the subsets that the benchmark names, or of all. Raises RunFailure."""
        found = self._found()
        benchmark, uri = self.benchmark, self.dataset.source
        files = {stem_of(file.path): file for file in found}
        if len(files) < len(found):
            twice = ", ".join(file.path for file in found if files[stem_of(file.path)] is not file)
            message = f"benchmark {benchmark.name}: several files of {uri} are of one subset: {twice}"
            raise RunFailure(FailureClass.BAD_SPEC, message, "give each file another name")
        for subset in benchmark.subsets or []:
            if subset not in files:
                there = ", ".join(files) or "none"
                raise RunFailure(
                    FailureClass.DATASET_NOT_FOUND,
                    f"benchmark {benchmark.name}: {uri} has no subset {subset}; it has {there}",
                    "name files of the folder, without the ending, in spec.benchmarks[].subsets",
                )
        if not files:
            message = f"benchmark {benchmark.name}: {uri} has no file of rows"
            raise RunFailure(FailureClass.DATASET_NOT_FOUND, message)
        return [files[subset] for subset in benchmark.subsets or files]

    def _found(self) -> list[DataFile]:
        """The files of rows: those that fetch listed for rows with pictures, or else those of the folder."""
        folder, uri = folder_of(self.benchmark, self.work), self.dataset.source
        if self.dataset.type in PICTURE_TYPES:
            return self.work.benchmark_files(self.benchmark.name)
        names = of_one_type(sorted(file.name for file in folder.iterdir() if file.is_file()))
        return [DataFile(path=name, uri=uri if Path(uri).name == name else f"{uri}/{name}") for name in names]


def folder_of(benchmark: Benchmark, work: Work) -> Path:
    """Return the folder of a benchmark's data. Raises RunFailure (DatasetNotFound) if fetch has not run."""
    folder = work.benchmarks / benchmark.name
    if not folder.is_dir():
        raise RunFailure(
            FailureClass.DATASET_NOT_FOUND, f"{folder} is missing", "run the verb fetch first, with the same --work"
        )
    return folder
