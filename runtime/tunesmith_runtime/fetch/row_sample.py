"""Samples the first rows of large data by reading parts of their files, and estimates how many rows the data have.

A text or a compressed file is read from its start. Of a Parquet or Arrow file the footer and the first batches are read.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.files import rows_or_errors, type_of
from tunesmith_runtime.data.files.arrow import ARROW
from tunesmith_runtime.data.files.columns import MOST_ROWS, arrow_failures, rows_of
from tunesmith_runtime.data.files.file_type import Row
from tunesmith_runtime.data.files.json_document import JSON
from tunesmith_runtime.data.files.parquet import PARQUET
from tunesmith_runtime.data.files.source import BUFFER_BYTES, Compression, Source
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.data import Data
from tunesmith_runtime.storage import Entry, Storage
from tunesmith_runtime.workdir import DataFile, Work

SAMPLE_BYTES = 4 << 20
"""Bytes of files that are read of all data sets together."""
MOST_BYTES = 256 << 20
"""Bytes that may be read of a file whose rows are in large batches, or that the start of a compressed file may expand to."""
EXPANDED_BYTES = 1 << 10
"""Bytes that are expanded at a time."""


@dataclass(frozen=True)
class FileSample:
    """The first rows of a file, and the number of all its rows: by its footer, else by its bytes."""

    rows: Sequence[Row | RowError]
    total: float


def write_sample(storage: Storage, sources: Sequence[tuple[int, Data, int | None]], scratch: Work) -> float:
    """Write the first rows of data sets as JSON lines to /work/data, in proportion to their bytes; return for how many rows each stands.

    `sources`: index of the data set, its files, and how many of its rows are used at most. Raises RunFailure for files that cannot be
    read in parts, such as a compressed Parquet file.
    """
    share = SAMPLE_BYTES / max(SAMPLE_BYTES, sum(data.size_bytes for _, data, _ in sources))
    scratch.data.mkdir(parents=True, exist_ok=True)
    files, sampled, total = list[DataFile](), 0, 0.0
    for index, data, most in sources:
        found = _sample(storage, data, max(1, round(share * data.size_bytes)), scratch.data)
        rows = found.rows[:most]
        name = f"{index:02d}.jsonl"
        write_lines(rows, scratch.data / name)
        files.append(DataFile(path=name, uri=data.uri, dataset=index))
        sampled += len(rows)
        total += min(found.total, most or found.total)
    scratch.write_data_files(files)
    return total / max(1, sampled)


def write_lines(rows: Sequence[Row | RowError], path: Path) -> None:
    """Write the rows that can be read as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    readable = (row for row in rows if not isinstance(row, RowError))
    path.write_text("".join(json.dumps(row, default=_no_text) + "\n" for row in readable))


def _no_text(value: object) -> str:
    """Return the placeholder of a value that JSON cannot hold, such as the bytes of an image."""
    return ""


def _sample(storage: Storage, data: Data, wanted: int, folder: Path) -> FileSample:
    """Sample `wanted` bytes of the files of a data set, from the first file on. Raises RunFailure for texts beside images."""
    if data.captions():
        raise RunFailure(FailureClass.BAD_ROW, f"{data.uri}: texts beside images are not sampled")
    rows, total, size = list[Row | RowError](), 0.0, 0
    for uri, entry in data.rows():
        left = wanted - size
        if left <= 0:
            break
        found = sample_file(RemoteFile(storage, data, uri, entry), min(left, entry.size_bytes), folder)
        rows += found.rows
        total += found.total
        size += entry.size_bytes
    return FileSample(rows, total * data.size_bytes / max(1, size))


@dataclass
class RemoteFile:
    """A file of rows where it is."""

    storage: Storage
    data: Data
    uri: str
    entry: Entry
    read_bytes: int = 0
    """Bytes that were read."""

    def read(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from the byte `start` on. Raises RunFailure."""
        content = (
            self.data.origin.read_range(self.uri, self.entry, start, length)
            if self.data.origin
            else self.storage.read_range(self.uri, start, length)
        )
        self.read_bytes += len(content)
        if self.read_bytes > MOST_BYTES:
            raise RunFailure(FailureClass.BAD_ROW, f"{self.uri}: the first rows take more than {MOST_BYTES} bytes")
        return content


def sample_file(file: RemoteFile, wanted: int, folder: Path) -> FileSample:
    """Sample the rows in the first `wanted` bytes of a file, or in that share of a file whose columns are apart."""
    found = type_of(file.uri)
    if found in (PARQUET, ARROW):
        return _sample_columns(file, wanted, is_parquet=found is PARQUET)
    path = folder / f"part-{Path(file.uri).name}"
    size = write_start(file, wanted, path)
    is_cut = size < file.entry.size_bytes
    if is_cut and (compression := Source(path, file.uri).compression):
        path = _expand_start(path, compression)
    rows = list[Row | RowError]()
    with suppress(*([RunFailure] if is_cut else [])):  # the reader refuses the row, or the stream, that is cut off
        rows.extend(row for _, row in rows_or_errors(path, file.uri))
    path.unlink()
    return FileSample(rows, len(rows) * file.entry.size_bytes / max(1, size))


def _expand_start(path: Path, compression: Compression) -> Path:
    """Expand a compressed file that is cut off, up to its last whole line; return the path of its content. A reader would lose its
    last buffer."""
    plain, content = path.with_suffix(""), bytearray()
    with suppress(EOFError, OSError), compression.open(path) as stream:
        while len(content) < MOST_BYTES and (block := stream.read(EXPANDED_BYTES)):
            content += block
    path.unlink()
    plain.write_bytes(content if type_of(plain.name) is JSON else content[: content.rfind(b"\n") + 1])
    return plain


def write_start(file: RemoteFile, wanted: int, path: Path) -> int:
    """Write the first `wanted` bytes of a file to `path`, a plain text up to its last whole line; return the bytes that were written."""
    content = file.read(0, wanted)
    has_lines = type_of(file.uri) is not JSON and Source(path, file.uri).compression is None
    if len(content) < file.entry.size_bytes and has_lines:
        content = content[: content.rfind(b"\n") + 1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return len(content)


def _sample_columns(file: RemoteFile, wanted: int, is_parquet: bool) -> FileSample:
    """Sample a Parquet or Arrow file."""
    source = Source(Path(file.uri), file.uri)
    if source.compression is not None:
        raise RunFailure(FailureClass.BAD_ROW, f"{file.uri}: a compressed file of columns is not read in parts")
    share = wanted / max(1, file.entry.size_bytes)
    with arrow_failures(source, "a file of columns"):
        total, batches = _parquet(file) if is_parquet else _arrow(file)
        if total is not None:
            rows = (row for batch in batches for _, row in rows_of(batch, source, 0))
            return FileSample(list(islice(rows, max(1, round(share * total)))), total)
        read = list[Row]()
        for batch in batches:
            read += [row for _, row in rows_of(batch, source, 0)]
            if file.read_bytes >= wanted:
                break
        return FileSample(read, len(read) / min(1.0, file.read_bytes / file.entry.size_bytes))


def _parquet(file: RemoteFile) -> tuple[int, Iterator[Any]]:
    """The number of rows of a Parquet file, and its batches."""
    from pyarrow.parquet import ParquetFile

    opened = ParquetFile(_Seekable(file), buffer_size=BUFFER_BYTES, pre_buffer=False)
    return opened.metadata.num_rows, opened.iter_batches(MOST_ROWS, use_threads=False)


def _arrow(file: RemoteFile) -> tuple[int | None, Iterator[Any]]:
    """The batches of an Arrow file, with the number of its rows, or of a stream, without it."""
    from pyarrow import ipc

    content = _Seekable(file)
    if not file.read(0, 8).startswith(b"ARROW1"):
        return None, iter(ipc.open_stream(content))
    opened = ipc.open_file(content)
    batches = map(opened.get_batch, range(opened.num_record_batches))
    first = next(batches, None)
    return (0, iter(())) if first is None else (first.num_rows * opened.num_record_batches, chain([first], batches))


class _Seekable(io.RawIOBase):
    """A remote file for pyarrow."""

    def __init__(self, file: RemoteFile) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        size = self._file.entry.size_bytes
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: size}[whence]
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        length = min(len(buffer), self._file.entry.size_bytes - self._at)
        content = self._file.read(self._at, length) if length > 0 else b""
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)
