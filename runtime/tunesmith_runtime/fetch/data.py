"""Data sets and benchmark data: find them, fingerprint their content, download them."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from tunesmith_api.datasets import Dataset, EvalDataset, RowFormat
from tunesmith_api.evaljob import PICTURE_TYPES, BenchmarkDataset, BenchmarkType
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.hashing import digest
from tunesmith_api.run import Hub
from tunesmith_api.splits import parse_split
from tunesmith_runtime.data.files import ending_of, of_one_type
from tunesmith_runtime.data.media_files import MediaFiles
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.fetch.data_layout import CARD, CARD_BYTES, TRAIN, LayoutError, caption_files, choose
from tunesmith_runtime.fetch.globs import has_wildcard, parent_of, pattern
from tunesmith_runtime.media.listing import is_picture
from tunesmith_runtime.storage import Entry, Storage, join
from tunesmith_runtime.storage.directory import rate
from tunesmith_runtime.storage.manifest import inside
from tunesmith_runtime.workdir import DataFile, Work

log = logging.getLogger(__name__)

FOR_TRAINING = (TRAIN,)
FOR_VALIDATION = ("validation", "test")
FOR_EVALUATION = ("test", "validation", TRAIN)
"""The splits of a hub's data set that are taken where none is named, in this order."""
MEDIA_FORMATS = (RowFormat.VQA, RowFormat.CAPTION, RowFormat.TRANSCRIPTION)
"""Formats of rows that name files."""

Purpose = dict[str, int]
"""What rows are for: a field of `DataFile` with the index of the data set."""


class Origin(Protocol):
    """Where files are read from that are not in the storage: a hub, or a web server."""

    def download(self, uri: str, path: Path, entry: Entry | None = None) -> None: ...
    def read_range(self, uri: str, entry: Entry, start: int, length: int) -> bytes: ...


@dataclass(frozen=True)
class DataSource:
    """Data as a spec names them."""

    uri: str
    subset: str | None = None
    split: str | None = None
    """Name of the split, without a part of it."""
    preferred: tuple[str, ...] = FOR_TRAINING
    """The splits to take from a hub where none is named."""
    has_rows: bool = True
    """Whether the files hold rows, and are not the files of a benchmark of EvalScope."""
    has_media: bool = False
    """Whether the rows name images, videos or sounds beside them."""
    identifies_pictures: bool = False
    """Whether pictures beside a file of rows are part of the fingerprint. An evaluation, which is not resumed, may be begun anew where
    others are uploaded there."""

    @classmethod
    def of(cls, dataset: Dataset) -> DataSource:
        """The source of a FineTuneJob's data set."""
        return cls(dataset.source, dataset.subset, _name(dataset.split), has_media=dataset.format in MEDIA_FORMATS)

    @classmethod
    def of_validation(cls, dataset: Dataset) -> DataSource:
        """The source of a data set of validation rows."""
        has_media = dataset.format in MEDIA_FORMATS
        return cls(dataset.source, dataset.subset, _name(dataset.split), FOR_VALIDATION, has_media=has_media)

    @classmethod
    def of_benchmark(cls, dataset: BenchmarkDataset) -> DataSource:
        """The source of a benchmark's data."""
        has_rows, has_pictures = dataset.type is not BenchmarkType.BENCHMARK, dataset.type in PICTURE_TYPES
        split = _name(dataset.split)
        return cls(dataset.source, dataset.subset, split, FOR_EVALUATION, has_rows, has_pictures, has_pictures)

    @classmethod
    def of_evaluation(cls, dataset: EvalDataset) -> DataSource:
        """The source of a data set whose questions must not be trained on."""
        return cls(dataset.source, dataset.subset, _name(dataset.split), FOR_EVALUATION)


def _name(split: str | None) -> str | None:
    return parse_split(split).name if split else None


@dataclass(frozen=True)
class Data:
    """The content of a data URI: a single object, the objects of a folder, or those that a wildcard matches."""

    uri: str
    entries: dict[str, Entry]
    """The objects by their URIs; the path of an entry is relative to the data's folder."""
    fingerprint: str
    source: DataSource | None = None
    card: str | None = None
    """The text of README.md, where it defines subsets and splits."""
    has_layout: bool = False
    """Whether the files belong to subsets and splits."""
    is_converted: bool = False
    """See `data_layout.CONVERTED`."""
    origin: Origin | None = None
    """Where to download from; None: the storage."""

    def rows(self) -> list[tuple[str, Entry]]:
        """The objects with rows: the single object, or the files of one type. Raises RunFailure (DatasetNotFound, EmptyDataset)."""
        return self._rows

    @property
    def size_bytes(self) -> int:
        """Bytes of the objects with rows. Raises RunFailure as `rows`."""
        return sum(entry.size_bytes for _, entry in self.rows())

    @cached_property
    def _rows(self) -> list[tuple[str, Entry]]:
        if self.uri in self.entries:
            if self.source and self.source.subset:
                message = f"data set {self.uri} is a single file, which has no subset {self.source.subset}"
                raise RunFailure(
                    FailureClass.DATASET_NOT_FOUND, message, "remove subset, or name the folder of the files"
                )
            rows = list(self.entries.items())
        else:
            uris = {entry.path: uri for uri, entry in self.entries.items()}
            paths, captions = self._paths(list(uris)), self.captions()
            if captions and not {*paths}.isdisjoint(captions):
                paths = [path for path in paths if path in captions]
            rows = [(uris[path], self.entries[uris[path]]) for path in paths]
        if not any(entry.size_bytes for _, entry in rows):
            raise RunFailure(FailureClass.EMPTY_DATASET, f"data set {self.uri}: {len(rows)} files, all empty")
        return rows

    def captions(self) -> dict[str, str]:
        """The paths of text files that describe an image beside them, and of that image; none unless the rows have media."""
        paths = [entry.path for entry in self.entries.values()]
        return caption_files(paths) if self.source and self.source.has_media else {}

    def media_files(self, storage: Storage) -> MediaFiles | None:
        """The files that rows may name; None where they cannot be listed, as on a web server, and unless the rows have media."""
        if not self.source or not self.source.has_media:
            return None
        uri, entry = next(iter(self.entries.items()))
        if self.uri in self.entries:
            return None if self.origin else _listed(storage, parent_of(self.uri)[0])
        root = uri.removesuffix(entry.path).rstrip("/")
        if has_wildcard(self.uri):
            return _listed(storage, root)
        return MediaFiles(root, frozenset(each.path for each in self.entries.values()))

    def _paths(self, paths: list[str]) -> list[str]:
        """The paths of the files with rows."""
        if self.has_layout and self.source:
            try:
                return choose(
                    paths, self.card, self.source.subset, self.source.split, self.source.preferred, self.is_converted
                )
            except LayoutError as error:
                raise RunFailure(FailureClass.DATASET_NOT_FOUND, f"data set {self.uri} {error}", error.hint) from error
        rows = of_one_type(paths) or (paths if has_wildcard(self.uri) else [])
        if not rows:
            found = ", ".join(paths[:5])
            raise RunFailure(
                FailureClass.DATASET_NOT_FOUND,
                f"data set {self.uri}: no file of rows in the folder; it has {found}",
                "name files in jsonl, json, csv, tsv, parquet, arrow or txt",
            )
        if others := len(paths) - len(rows):
            log.warning(
                "data set %s: %d files are read, %d others are not: name files with *", self.uri, len(rows), others
            )
        return rows


def _listed(storage: Storage, root: str) -> MediaFiles:
    return MediaFiles(root, frozenset(entry.path for entry in storage.list(root)))


def find_data(storage: Storage, sources: Iterable[DataSource], hub: Hub | None = None) -> dict[DataSource, Data]:
    """Find the content of each source. Raises RunFailure (DatasetNotFound, EmptyDataset, and those of hubs and stores)."""
    found = {source: _find(storage, source, hub) for source in sources}
    for source, data in found.items():
        if source.has_rows:
            data.rows()
    return found


def _find(storage: Storage, source: DataSource, hub: Hub | None) -> Data:
    scheme = source.uri.partition("://")[0]
    if scheme in ("hf", "ms"):
        from tunesmith_runtime.fetch.hub_data import find_hub_data

        return find_hub_data(source, hub)
    if scheme == "https":
        from tunesmith_runtime.fetch.web_data import find_web_data

        return find_web_data(source)
    data = _find_stored(storage, source)
    return _with_pictures(storage, data) if source.identifies_pictures else data


def _with_pictures(storage: Storage, data: Data) -> Data:
    """Data whose fingerprint is also of the pictures that their rows may name, where these are not among the data."""
    media = data.media_files(storage)
    if media is None or media.paths <= {entry.path for entry in data.entries.values()}:
        return data
    pictures = {
        entry.path: storage.fingerprint(join(media.root, entry.path), entry)
        for entry in storage.list(media.root)
        if is_picture(entry.path)
    }
    return replace(data, fingerprint=digest({"rows": data.fingerprint, "pictures": pictures}))


def _find_stored(storage: Storage, source: DataSource) -> Data:
    """Find data in object storage or local files."""
    uri = source.uri
    try:
        if has_wildcard(uri):
            return _find_matches(storage, source)
        single = None if uri.endswith("/") else storage.stat(uri)
        if single is not None:
            return Data(uri, {uri: single}, storage.fingerprint(uri, single), source)
        entries = {join(uri, entry.path): entry for entry in storage.list(uri)}
        if not entries:
            raise NotFound(uri, "no object and no folder of that name")
        return _with_layout(storage, source, uri, entries)
    except NotFound as missing:
        raise missing.named(FailureClass.DATASET_NOT_FOUND, "data set") from missing


def _find_matches(storage: Storage, source: DataSource) -> Data:
    """Find the objects that a wildcard matches."""
    folder, glob = parent_of(source.uri)
    wanted = pattern(unquote(glob) if source.uri.startswith("file://") else glob)
    listed = storage.list(folder)
    entries = {join(folder, entry.path): entry for entry in listed if wanted.fullmatch(entry.path)}
    if not entries:
        some = ", ".join(entry.path for entry in listed[:5]) or "nothing"
        raise NotFound(source.uri, f"no object matches; {folder} has {some}")
    return _with_layout(storage, source, folder, entries)


def _with_layout(storage: Storage, source: DataSource, folder: str, entries: dict[str, Entry]) -> Data:
    """Data in several objects. Their subsets and splits matter where the spec names one."""
    content = {entry.path: storage.fingerprint(uri, entry) for uri, entry in entries.items()}
    has_layout = bool(source.subset or source.split)
    described = entries.get(join(folder, CARD)) if has_layout else None
    card = None
    if described and described.size_bytes <= CARD_BYTES:
        card = (storage.read_bytes(join(folder, CARD)) or b"").decode("utf-8", "replace")
    return Data(source.uri, entries, digest(content), source, card, has_layout)


def row_sources(job: FineTuneJobSpec) -> list[tuple[Purpose, DataSource]]:
    """All data sets of a FineTuneJob."""
    validation = job.validation.separate if job.validation else []
    return [
        *(({"dataset": index}, DataSource.of(each)) for index, each in enumerate(job.datasets)),
        *(({"validation": index}, DataSource.of_validation(each)) for index, each in enumerate(validation)),
        *(
            ({"evaluation": index}, DataSource.of_evaluation(each))
            for index, each in enumerate(job.decontaminate or [])
        ),
    ]


def download_rows(storage: Storage, job: FineTuneJobSpec, found: Mapping[DataSource, Data], work: Work) -> None:
    """Download the rows of all data sets of a job to /work/data."""
    shutil.rmtree(work.data, ignore_errors=True)
    started, size, files = time.monotonic(), 0, list[DataFile]()
    for purpose, source in row_sources(job):
        data = found[source]
        captions, listing = data.captions(), None
        if media := data.media_files(storage):
            listing = f"files-{len(files):02d}.json"
            media.write(work.data / listing)
        for uri, entry in data.rows():
            name = f"{len(files):02d}{ending_of(uri)}"
            (data.origin or storage).download(uri, work.data / name, entry)
            described = {"listing": listing, "caption_of": captions.get(entry.path)}
            files.append(DataFile.model_validate({"path": name, "uri": uri, **described, **purpose}))
            size += entry.size_bytes
    work.write_data_files(files)
    log.info("data: %d files, %s", len(files), rate(size, time.monotonic() - started))


def download_benchmark(storage: Storage, data: Data, work: Work, name: str) -> None:
    """Download the data of the benchmark `name`. Files of rows stand beside each other; those of EvalScope's benchmarks keep their paths.
    Media that rows name are listed, and downloaded where they are read.

    Raises RunFailure (BadSpec) before the download if an object's key points outside the folder.
    """
    source, folder = data.source, work.benchmarks / name
    has_media = source is not None and source.has_media
    is_flat = has_media or (source is not None and source.has_rows and (data.has_layout or has_wildcard(data.uri)))
    files = data.rows() if is_flat else list(data.entries.items())
    paths = {uri: entry.path.replace("/", "--") if is_flat else entry.path for uri, entry in files}
    for path in paths.values():
        try:
            inside(path)
        except ValueError as error:
            raise RunFailure(
                FailureClass.BAD_SPEC, f"benchmark data {data.uri}: {error}", "rename the object"
            ) from error
    for uri, entry in files:
        (data.origin or storage).download(uri, folder / paths[uri], entry)
    if not has_media:
        return
    captions = data.captions()
    rows = [DataFile(path=paths[uri], uri=uri, caption_of=captions.get(entry.path)) for uri, entry in files]
    work.write_benchmark_files(name, rows)
    if media := data.media_files(storage):
        media.write(work.benchmark_media(name))
