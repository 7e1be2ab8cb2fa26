"""Download of an object in parts, resumed where an earlier download broke off, with its sha256 computed on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from io import FileIO
from pathlib import Path
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage import Entry
from tunesmith_runtime.storage.files import disk_failures
from tunesmith_runtime.storage.manifest import INCOMPLETE
from tunesmith_runtime.storage.parts import BLOCK_BYTES, OrderedHash, Part, pwrite_all, split_file
from tunesmith_runtime.storage.s3.connection import STREAMS_PER_FILE, Connection
from tunesmith_runtime.storage.s3.failures import split

log = logging.getLogger(__name__)

PART_BYTES = 32 << 20
PART_TRIES = 3
"""boto3 does not retry a response that breaks off midway."""


def download(connection: Connection, uri: str, path: Path, entry: Entry) -> str:
    """Download the version of an object that `entry` names to `path`. Return the sha256 of its content, as hex.

    Raises RunFailure: StorageCorrupt if the object has changed since, StorageUnreachable if its responses keep breaking off,
    DiskFull.
    """
    with disk_failures(path), _partial(path, entry) as partial:

        def finish_part(part: Part) -> None:
            if part.number not in partial.present:
                _fetch(connection, uri, entry, part, partial.descriptor)
                partial.journal.write(b"%d\n" % part.number)
            partial.hash.complete(part)

        pool = ThreadPoolExecutor(STREAMS_PER_FILE)
        try:
            for future in [pool.submit(finish_part, part) for part in partial.parts]:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
        return partial.finish()


@dataclass
class _Partial:
    """PATH.incomplete, and PATH.incomplete-parts, which records the version of the object and the parts on disk."""

    path: Path
    parts: list[Part]
    present: set[int]
    """Numbers of the parts that an earlier download left."""
    file: FileIO
    journal: FileIO
    hash: OrderedHash = field(init=False)

    def __post_init__(self) -> None:
        self.hash = OrderedHash(self.descriptor, self.parts)

    @property
    def descriptor(self) -> int:
        return self.file.fileno()

    def finish(self) -> str:
        """Give the complete file its name, and return its sha256."""
        _content(self.path).replace(self.path)
        _journal(self.path).unlink()
        return self.hash.hexdigest()


def _content(path: Path) -> Path:
    return path.with_name(path.name + INCOMPLETE)


def _journal(path: Path) -> Path:
    return path.with_name(path.name + INCOMPLETE + "-parts")


@contextmanager
def _partial(path: Path, entry: Entry) -> Iterator[_Partial]:
    path.parent.mkdir(parents=True, exist_ok=True)
    present = _prepare(path, entry)
    with _content(path).open("r+b", buffering=0) as file, _journal(path).open("ab", buffering=0) as journal:
        yield _Partial(path, split_file(entry.size_bytes, PART_BYTES), present, file, journal)


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


def _fetch(connection: Connection, uri: str, entry: Entry, part: Part, descriptor: int) -> None:
    """Write a part of the object into the file. A response that breaks off is continued by a further request."""
    bucket, key = split(uri)
    offset, reason = part.offset, ""
    for trial in range(1, PART_TRIES + 1):
        with connection.failures(uri):
            response = connection.client.get_object(
                Bucket=bucket, Key=key, Range=f"bytes={offset}-{part.end - 1}", IfMatch=entry.etag
            )
        if response["ContentLength"] != part.end - offset:
            response["Body"].close()
            reason = f"the answer has {response['ContentLength']} bytes instead of {part.end - offset}"
        else:
            offset, reason = _receive(response["Body"], offset, part.end, descriptor)
        if offset == part.end:
            return
        log.warning("%s: %s (try %d of %d)", uri, reason, trial, PART_TRIES)
        time.sleep(trial)
    raise RunFailure(FailureClass.STORAGE_UNREACHABLE, f"{uri} at {connection.endpoint}: {reason}")


def _receive(body: Any, offset: int, end: int, descriptor: int) -> tuple[int, str]:
    """Write a response from `offset` of the file. Return the offset behind the last byte, and why the response ended early.

    It is read by http.client's `readinto`, below botocore and urllib3, whose own methods allocate and copy every block: a fifth of
    the client's CPU time.
    """
    response, buffer = body._raw_stream, memoryview(bytearray(BLOCK_BYTES))
    try:
        while offset < end:
            try:
                count = response._fp.readinto(buffer[: end - offset])
            except (OSError, HTTPException) as error:
                return offset, f"{type(error).__name__}: {error}"
            if not count:
                return offset, f"the answer ended at byte {offset} of {end}"
            pwrite_all(descriptor, buffer[:count], offset)
            offset += count
        response.release_conn()
        return offset, ""
    finally:
        if offset < end:
            body.close()
