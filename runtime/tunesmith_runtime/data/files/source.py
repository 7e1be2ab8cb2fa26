"""A downloaded data file as bytes: expanded if it is compressed, within limits, and identified by its first bytes."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, cast

from tunesmith_runtime.data.files.place import bad_file

BUFFER_BYTES = 1 << 18
MAX_RATIO = 250
"""Bytes that a byte of a compressed file may stand for. Text of a single repeated row reaches about 100."""
ANY_RATIO_BYTES = 64 << 20
"""A compressed file may expand to this size whatever its ratio."""


class Broken(ValueError):
    """A compressed stream that is damaged, ends early or expands beyond the limits. `hint` is what to do."""

    def __init__(self, sentence: str, hint: str) -> None:
        super().__init__(sentence)
        self.hint = hint


def _open_gzip(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb"))


def _open_zstd(path: Path) -> BinaryIO:
    import pyarrow

    return cast(BinaryIO, pyarrow.CompressedInputStream(str(path), "zstd"))


@dataclass(frozen=True)
class Compression:
    """A compression that is read."""

    name: str
    start: bytes
    """First bytes of every stream."""
    open: Callable[[Path], BinaryIO]


COMPRESSIONS: Mapping[str, Compression] = {
    ".gz": Compression("gzip", b"\x1f\x8b", _open_gzip),
    ".zst": Compression("Zstandard", b"\x28\xb5\x2f\xfd", _open_zstd),
}
"""Ending of a file's name -> its compression."""


@dataclass(frozen=True)
class Magic:
    """First bytes that identify the kind of a file."""

    start: bytes
    what: str
    hint: str


def _rename(ending: str) -> str:
    return f"rename the file so that its name ends in {ending}"


_EXPAND = "decompress it, or compress it with gzip (.gz) or Zstandard (.zst)"
MAGIC = (
    Magic(b"PAR1\x15", "a Parquet file", _rename(".parquet")),
    Magic(b"ARROW1\x00\x00", "an Arrow file", _rename(".arrow")),
    *(Magic(each.start, f"compressed with {each.name}", _rename(ending)) for ending, each in COMPRESSIONS.items()),
    Magic(b"BZh91AY&SY", "compressed with bzip2", _EXPAND),
    Magic(b"\xfd7zXZ\x00", "compressed with xz", _EXPAND),
    Magic(b"PK\x03\x04", "a ZIP archive or an Excel workbook", "unpack it, or save the sheet as CSV in UTF-8"),
    Magic(
        b"version https://git-lfs",
        "a pointer of Git LFS in place of the data",
        "run `git lfs pull` and upload the file again",
    ),
)
MAGIC_BYTES = max(len(magic.start) for magic in MAGIC)


def magic_of(start: bytes) -> Magic | None:
    """What a file is by its first bytes; None for text and anything unknown."""
    return next((magic for magic in MAGIC if start.startswith(magic.start)), None)


class _Limited(io.RawIOBase):
    """The bytes of a compressed file. Raises Broken for damage and beyond the limits."""

    def __init__(self, source: BinaryIO, compressed_bytes: int, compression: str) -> None:
        self._source, self._compression = source, compression
        self._compressed, self._read = compressed_bytes, 0
        self._most = max(ANY_RATIO_BYTES, MAX_RATIO * compressed_bytes)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        with self._damage():
            content = self._source.read(len(buffer))
        self._read += len(content)
        if self._read > self._most:
            raise Broken(
                f"{self._compressed} bytes of {self._compression} expand to more than {self._most} "
                f"({MAX_RATIO} times as much), as a decompression bomb does",
                "store the file without compression",
            )
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._source.close()
        super().close()

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except EOFError as error:
            raise self._broken("ends before its end mark: the file is truncated") from error
        except (zlib.error, gzip.BadGzipFile) as error:
            raise self._broken(f"is damaged: {error}") from error
        except OSError as error:
            if error.errno:
                raise  # of the disk
            raise self._broken(f"is damaged or truncated: {str(error).splitlines()[0]}") from error

    def _broken(self, sentence: str) -> Broken:
        return Broken(f"the {self._compression} stream {sentence}", "compress the file again, and compare its sha256")


@dataclass(frozen=True)
class Source:
    """A file of rows on the disk."""

    path: Path
    uri: str
    """Its URI, which failures name."""

    @property
    def compression(self) -> Compression | None:
        """The compression that the file's name states."""
        return COMPRESSIONS.get(self.path.suffix.lower())

    def open(self) -> io.BufferedReader:
        """The bytes of the file, expanded. Reading them raises Broken."""
        if (compression := self.compression) is None:
            return io.BufferedReader(io.FileIO(self.path), BUFFER_BYTES)
        try:
            source = compression.open(self.path)
        except OSError as error:  # pyarrow reads the first bytes here
            if error.errno:
                raise
            raise bad_file(self.uri, f"is not {compression.name}: {str(error).splitlines()[0]}") from error
        return io.BufferedReader(_Limited(source, self.path.stat().st_size, compression.name), BUFFER_BYTES)

    def open_text(self) -> io.BufferedReader:
        """Like `open`, for text. Raises RunFailure (BadRow) for bytes that are not text, whatever the file's name is."""
        file = self.open()
        try:
            start = file.peek(MAGIC_BYTES)[:MAGIC_BYTES]
        except Broken as broken:
            raise bad_file(self.uri, str(broken), self._hint(broken)) from broken
        if magic := magic_of(start):
            raise bad_file(self.uri, f"is {magic.what} by its first bytes, not the text that its name says", magic.hint)
        return file

    def _hint(self, broken: Broken) -> str:
        """What to do about a stream that is broken from its first byte on: it may be not compressed at all."""
        start = self.compression.start if self.compression else b""
        with self.path.open("rb") as file:
            if file.read(len(start)) == start:
                return broken.hint
        return f"rename the file so that its name does not end in {self.path.suffix}"

    @contextmanager
    def expanded(self) -> Iterator[Path]:
        """The path of the file, or that of a temporary file beside it with its expanded content. For files read by position."""
        if self.compression is None:
            yield self.path
            return
        with NamedTemporaryFile(dir=self.path.parent, prefix=".expanded-") as copy:
            try:
                with self.open() as file:
                    while block := file.read(1 << 20):
                        copy.write(block)
            except Broken as broken:
                raise bad_file(self.uri, str(broken), self._hint(broken)) from broken
            copy.flush()
            yield Path(copy.name)
