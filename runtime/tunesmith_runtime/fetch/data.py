"""Data sets and benchmark data: find them, fingerprint their content, download them."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_api.hashing import digest
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.storage import Entry, Storage, join
from tunesmith_runtime.storage.directory import rate
from tunesmith_runtime.storage.manifest import inside
from tunesmith_runtime.workdir import DataFile, Work

log = logging.getLogger(__name__)

ROWS = ".jsonl"


@dataclass(frozen=True)
class Data:
    """The content of a data URI: a single object, or the objects of a folder."""

    uri: str
    entries: dict[str, Entry]
    """The objects by their URIs; the path of an entry is relative to the data's URI."""
    fingerprint: str

    def rows(self) -> list[tuple[str, Entry]]:
        """The objects with rows: the single object, or a folder's .jsonl files. Raises RunFailure (DatasetNotFound, EmptyDataset)."""
        if self.uri in self.entries:
            rows = list(self.entries.items())
        else:
            rows = [(uri, entry) for uri, entry in self.entries.items() if entry.path.endswith(ROWS)]
        if not rows:
            found = ", ".join(entry.path for entry in list(self.entries.values())[:5])
            raise RunFailure(
                FailureClass.DATASET_NOT_FOUND, f"data set {self.uri}: no {ROWS} file in the folder; it has {found}"
            )
        if not any(entry.size_bytes for _, entry in rows):
            raise RunFailure(FailureClass.EMPTY_DATASET, f"data set {self.uri}: {len(rows)} files, all empty")
        return rows


def find_data(storage: Storage, uris: list[str]) -> dict[str, Data]:
    """Find the content of each URI. Raises RunFailure (DatasetNotFound)."""
    return {uri: _find(storage, uri) for uri in uris}


def _find(storage: Storage, uri: str) -> Data:
    try:
        single = None if uri.endswith("/") else storage.stat(uri)
        if single is not None:
            return Data(uri, {uri: single}, storage.fingerprint(uri, single))
        entries = {join(uri, entry.path): entry for entry in storage.list(uri)}
        if not entries:
            raise NotFound(uri, "no object and no folder of that name")
    except NotFound as missing:
        raise missing.named(FailureClass.DATASET_NOT_FOUND, "data set") from missing
    return Data(uri, entries, digest({entry.path: storage.fingerprint(each, entry) for each, entry in entries.items()}))


def download_rows(storage: Storage, sources: list[tuple[int | None, Data]], work: Work) -> None:
    """Download the rows of data sets to /work/data. Each source is an index in spec.datasets (None: validation) with its data."""
    shutil.rmtree(work.data, ignore_errors=True)
    started, size, files = time.monotonic(), 0, list[DataFile]()
    for index, data in sources:
        for uri, entry in data.rows():
            name = f"{len(files):02d}{ROWS}"
            storage.download(uri, work.data / name, entry)
            files.append(DataFile(path=name, uri=uri, dataset=index))
            size += entry.size_bytes
    work.write_data_files(files)
    log.info("data: %d files, %s", len(files), rate(size, time.monotonic() - started))


def download_benchmark(storage: Storage, data: Data, directory: Path) -> None:
    """Download a benchmark's data unchanged: a file under its own name, or a folder with all its objects.

    Raises RunFailure (BadSpec) before the download if an object's key points outside the folder.
    """
    for entry in data.entries.values():
        try:
            inside(entry.path)
        except ValueError as error:
            raise RunFailure(
                FailureClass.BAD_SPEC, f"benchmark data {data.uri}: {error}", "rename the object"
            ) from error
    for uri, entry in data.entries.items():
        storage.download(uri, directory / entry.path, entry)
