"""Types that the import of a hub's model shares with the clients of the two hubs: files with digests, and failures."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure

log = logging.getLogger(__name__)

BLOCK_BYTES = 4 << 20
RATE_LIMIT_TRIES = 4
RATE_LIMIT_SECONDS = 120.0
"""Longest wait that a hub may ask for. A longer one ends the attempt, and the operator starts the next one later."""
RATE_LIMIT_DEFAULT_SECONDS = 10.0
"""Wait if the hub asks for none."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class RepositoryKind:
    """Content of a repository, or of a file on a web server."""

    name: str
    """Its name in the APIs of both hubs."""
    noun: str
    """Its name in messages."""
    field: str
    """The field with its URI, in hints."""
    missing: FailureClass
    """Class of the failure if it does not exist."""


MODEL = RepositoryKind("model", "model", "spec.model.uri", FailureClass.MODEL_NOT_FOUND)
DATA_SET = RepositoryKind("dataset", "data set", "the uri of the data set", FailureClass.DATASET_NOT_FOUND)


@dataclass(frozen=True)
class Digest:
    """Digest of a file by the hub: `sha256` of its content, or `git`, the sha1 of its git blob, for small files."""

    kind: str
    hex: str


@dataclass(frozen=True)
class HubFile:
    """A file of a repository."""

    path: str
    size_bytes: int | None
    digest: Digest | None
    """None if the server lists none."""


@dataclass(frozen=True)
class Listing:
    """The files of a revision."""

    revision: str
    """The commit, if the hub names one; otherwise the branch or tag."""
    files: tuple[HubFile, ...]


class HubServer(Protocol):
    """One server of a hub, and one repository on it. All failures are RunFailure that name the repository and the server."""

    server: str
    """Its URL."""

    def list_files(self) -> Listing:
        """Return the files of the revision. Raises RunFailure (HubForbidden, HubRateLimited, HubUnreachable, or `RepositoryKind.missing`)."""

    def download(self, file: HubFile, revision: str, directory: Path) -> None:
        """Download a file of a listing to DIRECTORY/PATH. Raises RunFailure as well as HubCorrupt and DiskFull."""

    def read_range(self, file: HubFile, revision: str, start: int, length: int) -> bytes:
        """Return up to `length` bytes of a file of a listing from the byte `start` on. Raises RunFailure as well as HubCorrupt."""


def range_header(start: int, length: int) -> dict[str, str]:
    """Return the headers that ask for `length` bytes from the byte `start` on (RFC 9110, 14.2)."""
    return {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}


def read_part(chunks: Iterable[bytes], status: int, start: int, length: int) -> bytes:
    """Return `length` bytes of an answer to `range_header`. Of a server that sends the whole file (200) no more is read than needed."""
    skipped = start if status == 200 else 0
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) >= skipped + length:
            break
    return bytes(content[skipped : skipped + length])


class RateLimited(RunFailure):
    """A hub refuses requests for `seconds`."""

    def __init__(self, message: str, seconds: float | None) -> None:
        asked = f", and asks to wait {seconds:.0f} s" if seconds is not None else ""
        super().__init__(FailureClass.HUB_RATE_LIMITED, f"{message}{asked}")
        self.seconds = RATE_LIMIT_DEFAULT_SECONDS if seconds is None else seconds


def wait_out(call: Callable[[], Result]) -> Result:
    """Call `call`; while a hub limits the rate, wait as long as it asks, within bounds, and call again. Raises RateLimited."""
    for trial in range(1, RATE_LIMIT_TRIES + 1):
        try:
            return call()
        except RateLimited as limited:
            if trial == RATE_LIMIT_TRIES or limited.seconds > RATE_LIMIT_SECONDS:
                raise
            log.warning("%s (try %d of %d)", limited.message, trial, RATE_LIMIT_TRIES)
            time.sleep(limited.seconds)
    raise AssertionError("unreachable")


def digests_of(path: Path) -> dict[str, str]:
    """Return the digests of a file by kind, in one pass (git's: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects)."""
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            sha256.update(block)
            blob.update(block)
    return {"sha256": sha256.hexdigest(), "git": blob.hexdigest()}
