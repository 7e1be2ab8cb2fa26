"""Object storage by URI: one interface to s3://bucket/key, pvc://claim/path and file:///path.

A storage holds objects and folders and knows nothing of runs and models. Failures are RunFailure with the URI and a hint:
StorageUnreachable, Storage403, StorageTLS, StorageCorrupt, StorageUnsupported, DiskFull, and NotFound for a missing object
or bucket.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Store
from tunesmith_runtime.errors import NotFound, RunFailure

WRITE_TRIES = 6
WRITE_SECONDS = 0.5


@dataclass(frozen=True)
class Entry:
    """An object: its path below the listed folder (from `stat`: its name), size, and etag.

    The etag changes whenever the content changes: S3's ETag, or inode, modification time and size of a file.
    """

    path: str
    size_bytes: int
    etag: str


class Backend(Protocol):
    """The operations of a scheme, as described in Storage. `uri` has that scheme."""

    def stat(self, uri: str) -> Entry | None: ...
    def list(self, uri: str) -> list[Entry]: ...
    def read_bytes(self, uri: str) -> bytes | None: ...
    def read_range(self, uri: str, start: int, length: int) -> bytes: ...
    def write_bytes(self, uri: str, content: bytes, if_absent: bool) -> bool: ...
    def replace_bytes(self, uri: str, content: bytes, etag: str) -> bool: ...
    def fingerprint(self, uri: str, entry: Entry) -> str: ...
    def download(self, uri: str, path: Path, entry: Entry) -> str: ...
    def upload(self, path: Path, uri: str, is_addressed: bool) -> None: ...
    def discard_uploads(self, uri: str) -> None: ...
    def copy(self, source: str, target: str) -> None: ...
    def delete(self, uri: str) -> None: ...
    def probe(self, uri: str) -> None: ...


def join(uri: str, *parts: str) -> str:
    """Return `uri` with path parts appended."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def name_of(uri: str) -> str:
    """Return the last part of a URI's path."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


@dataclass
class Storage:
    """Objects by URI. The backend of a scheme is created at its first use. Safe to use from threads."""

    makers: dict[str, Callable[[], Backend]]
    _made: dict[str, Backend] = field(default_factory=dict)

    def _backend(self, uri: str) -> Backend:
        scheme = uri.partition("://")[0]
        if scheme not in self.makers:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"{uri}: storage with the scheme {scheme}:// is not supported",
                "use s3://",
            )
        if scheme not in self._made:
            self._made[scheme] = self.makers[scheme]()
        return self._made[scheme]

    def stat(self, uri: str) -> Entry | None:
        """Return the object at `uri`, or None."""
        return self._backend(uri).stat(uri)

    def list(self, uri: str) -> list[Entry]:
        """Return all objects below the folder `uri`, sorted by path. Raises NotFound if the bucket does not exist."""
        return self._backend(uri).list(uri)

    def read_bytes(self, uri: str) -> bytes | None:
        """Return the content of a small object, or None if there is none. Raises NotFound if the bucket does not exist."""
        return self._backend(uri).read_bytes(uri)

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """Return up to `length` bytes of an object from the byte `start` on. Raises NotFound if there is no object."""
        return self._backend(uri).read_range(uri, start, length)

    def write_bytes(self, uri: str, content: bytes, if_absent: bool = False) -> bool:
        """Write a small object atomically, with `if_absent` only if there is none. Return whether it was written."""
        return self._backend(uri).write_bytes(uri, content, if_absent)

    def write_once(self, uri: str, content: bytes) -> bytes:
        """Write a small object if there is none; return the stored content: `content`, or what another writer wrote first.

        A store may refuse a write because of a concurrent write that then fails as well (S3: 409 ConditionalRequestConflict),
        so a refused write is repeated while the object is absent. Raises RunFailure (StorageUnreachable).
        """
        for trial in range(WRITE_TRIES):
            time.sleep(trial * WRITE_SECONDS)
            if self.write_bytes(uri, content, if_absent=True):
                return content
            if (there := self.read_bytes(uri)) is not None:
                return there
        raise RunFailure(
            FailureClass.STORAGE_UNREACHABLE,
            f"{uri}: the store refused {WRITE_TRIES} conditional writes of an object that does not exist",
        )

    def replace_bytes(self, uri: str, content: bytes, etag: str) -> bool:
        """Replace a small object if its etag is still `etag`. Return whether it was replaced."""
        return self._backend(uri).replace_bytes(uri, content, etag)

    def fingerprint(self, uri: str, entry: Entry) -> str:
        """Return the identity of the content of `entry` at `uri`: the S3 ETag, or the sha256 of a file.

        An ETag costs no download. Uploads of equal content may have different ETags (other part sizes, encryption by KMS),
        but equal ETags mean equal content.
        """
        return self._backend(uri).fingerprint(uri, entry)

    def download(self, uri: str, path: Path, entry: Entry | None = None) -> str:
        """Download an object to `path`: into PATH.incomplete, resuming an earlier download, then renamed.

        `entry` is the result of stat or list, if known. Returns the sha256 of the content as hex, which is computed while the
        bytes are received. Raises NotFound if there is no object.
        """
        entry = entry or self.stat(uri)
        if entry is None:
            raise NotFound(uri)
        return self._backend(uri).download(uri, path, entry)

    def upload(self, path: Path, uri: str, is_addressed: bool = False) -> None:
        """Upload the file `path` to `uri` atomically.

        `is_addressed`: `uri` names the content, so all uploads to it have the same bytes. Then what an interrupted upload has
        left there is not sent again.
        """
        self._backend(uri).upload(path, uri, is_addressed)

    def discard_uploads(self, uri: str) -> None:
        """Delete what interrupted uploads have left below the folder `uri`; it takes space and is not listed."""
        self._backend(uri).discard_uploads(uri)

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store, without transferring its content. Raises RunFailure, NotFound if there is none."""
        self._backend(source).copy(source, target)

    def delete(self, uri: str) -> None:
        """Delete the object at `uri`, if there is one."""
        self._backend(uri).delete(uri)

    def probe(self, uri: str) -> None:
        """Check that the store supports what a run needs, with an object at the unused `uri`, which is deleted.

        Raises RunFailure if the object cannot be written, and StorageUnsupported if the store lacks conditional writes or
        multipart uploads.
        """
        self._backend(uri).probe(uri)


def _s3(store: Store) -> Backend:
    from tunesmith_runtime.storage.s3 import S3  # importing boto3 takes most of a second

    return S3(store)


def _files() -> Backend:
    from tunesmith_runtime.storage.files import Files

    return Files()


def _volumes() -> Backend:
    from tunesmith_runtime.storage.volumes import Volumes

    return Volumes()


def open_storage(store: Store) -> Storage:
    """Return the storage of a run: S3 at the store's endpoint, the mounted volumes, and local files."""
    return Storage({"s3": partial(_s3, store), "pvc": _volumes, "file": _files})
