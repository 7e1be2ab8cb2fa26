"""Download of an object in parts, resumed where an earlier download broke off, with its sha256 computed on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from tunesmith_runtime.storage import Entry
from tunesmith_runtime.storage.files import disk_failures
from tunesmith_runtime.storage.manifest import INCOMPLETE
from tunesmith_runtime.storage.parts import Part, split_file
from tunesmith_runtime.storage.s3.connection import Connection
from tunesmith_runtime.storage.s3.streams import Streams

PART_BYTES = 32 << 20
"""What a download that breaks off loses at most, for each of its streams."""


def download(connection: Connection, uri: str, path: Path, entry: Entry) -> str:
    """Download the version of an object that `entry` names to `path`. Return the sha256 of its content, as hex.

    Raises RunFailure: StorageCorrupt if the object has changed since, StorageUnreachable if its responses keep breaking off,
    DiskFull.
    """
    parts = split_file(entry.size_bytes, PART_BYTES)
    with disk_failures(path):
        with _partial(path, entry) as partial:
            descriptor = partial.file.fileno()
            sha256 = Streams(connection, uri, entry, descriptor, parts, partial.present, partial.note).run()
        _content(path).replace(path)
        _journal(path).unlink()
    return sha256


@dataclass(frozen=True)
class _Partial:
    """PATH.incomplete, and PATH.incomplete-parts, which records the version of the object and the parts on disk."""

    file: FileIO
    journal: FileIO
    present: set[int]
    """Numbers of the parts that an earlier download left."""

    def note(self, part: Part) -> None:
        """Record that the file has this part."""
        self.journal.write(b"%d\n" % part.number)


def _content(path: Path) -> Path:
    return path.with_name(path.name + INCOMPLETE)


def _journal(path: Path) -> Path:
    return path.with_name(path.name + INCOMPLETE + "-parts")


@contextmanager
def _partial(path: Path, entry: Entry) -> Iterator[_Partial]:
    path.parent.mkdir(parents=True, exist_ok=True)
    present = _prepare(path, entry)
    with _content(path).open("r+b", buffering=0) as file, _journal(path).open("ab", buffering=0) as journal:
        yield _Partial(file, journal, present)


def _prepare(path: Path, entry: Entry) -> set[int]:
    """Create the partial file and its journal, or keep those of the same version. Return the numbers of the parts there."""
    content, journal, title = _content(path), _journal(path), f"{entry.etag} {entry.size_bytes}"
    # a last line without a line break is incomplete
    is_whole = content.is_file() and content.stat().st_size == entry.size_bytes
    lines = journal.read_text().split("\n")[:-1] if journal.is_file() and is_whole else []
    if lines and lines[0] == title:
        return {int(line) for line in lines[1:] if line.isdigit()}
    with content.open("wb") as file:
        file.truncate(entry.size_bytes)
    journal.write_text(title + "\n")
    return set()
