"""Object storage by URI: s3://bucket/key and file:///path behind the same few methods.

A storage knows objects and folders, no runs and no models. Failures are RunFailure with the URI and the fix in them:
StorageUnreachable, Storage403, StorageTLS, StorageCorrupt, StorageUnsupported, DiskFull; NotFound where an object or bucket must be there.
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
    """An object: its path below the listed folder (its name, for a single one), its size in bytes, and its etag.

    The etag changes with every content that is written there: S3's ETag; inode and time of change of a local file.
    """

    path: str
    size_bytes: int
    etag: str


class Backend(Protocol):
    """What a scheme must do; `uri` is of that scheme. See Storage for what each means."""

    def stat(self, uri: str) -> Entry | None: ...
    def list(self, uri: str) -> list[Entry]: ...
    def read_bytes(self, uri: str) -> bytes | None: ...
    def write_bytes(self, uri: str, content: bytes, if_absent: bool) -> bool: ...
    def replace_bytes(self, uri: str, content: bytes, etag: str) -> bool: ...
    def fingerprint(self, uri: str, entry: Entry) -> str: ...
    def download(self, uri: str, path: Path, entry: Entry) -> None: ...
    def upload(self, path: Path, uri: str) -> None: ...
    def delete(self, uri: str) -> None: ...
    def probe(self, uri: str) -> None: ...


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts below it."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def name_of(uri: str) -> str:
    """The last part of a URI's path."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


@dataclass
class Storage:
    """Objects by URI; picks the backend by the scheme and makes it when it is first needed. Safe to use from threads."""

    makers: dict[str, Callable[[], Backend]]
    _made: dict[str, Backend] = field(default_factory=dict)

    def _backend(self, uri: str) -> Backend:
        scheme = uri.partition("://")[0]
        if scheme not in self.makers:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"{uri}: storage of the kind {scheme}:// is not available in this version",
                "use s3://",
            )
        if scheme not in self._made:
            self._made[scheme] = self.makers[scheme]()
        return self._made[scheme]

    def stat(self, uri: str) -> Entry | None:
        """The object at `uri`, or None."""
        return self._backend(uri).stat(uri)

    def list(self, uri: str) -> list[Entry]:
        """All objects below the folder `uri`, sorted by path; empty where there are none. Raises NotFound without a bucket."""
        return self._backend(uri).list(uri)

    def read_bytes(self, uri: str) -> bytes | None:
        """The content of a small object, or None where there is none. Raises NotFound without a bucket."""
        return self._backend(uri).read_bytes(uri)

    def write_bytes(self, uri: str, content: bytes, if_absent: bool = False) -> bool:
        """Write a small object whole; with `if_absent` only where there is none. Whether it was written."""
        return self._backend(uri).write_bytes(uri, content, if_absent)

    def write_once(self, uri: str, content: bytes) -> bytes:
        """Write a small object where there is none; returns what is there now, which is `content` or another writer's.

        A store may refuse a write because of another one at the same time that then fails as well (S3: 409
        ConditionalRequestConflict), so a refusal alone says nothing. Raises RunFailure (StorageUnreachable).
        """
        for trial in range(WRITE_TRIES):
            time.sleep(trial * WRITE_SECONDS)
            if self.write_bytes(uri, content, if_absent=True):
                return content
            if (there := self.read_bytes(uri)) is not None:
                return there
        raise RunFailure(
            FailureClass.STORAGE_UNREACHABLE,
            f"{uri}: the store refused {WRITE_TRIES} conditional writes of an object that is not there",
        )

    def replace_bytes(self, uri: str, content: bytes, etag: str) -> bool:
        """Replace a small object if its etag is still the given one. Whether it was."""
        return self._backend(uri).replace_bytes(uri, content, etag)

    def fingerprint(self, uri: str, entry: Entry) -> str:
        """What tells the content of `entry`, which is at `uri`, from another: an S3 ETag, sha256 of a local file.

        An ETag costs no download. It is the same for the same content uploaded the same way; another way (other part
        sizes, encryption by KMS) gives another one, so it may take equal contents for different, never the reverse.
        """
        return self._backend(uri).fingerprint(uri, entry)

    def download(self, uri: str, path: Path, entry: Entry | None = None) -> None:
        """Bring an object to `path`: into PATH.incomplete, going on where an earlier try ended, then renamed.

        `entry` is what stat or list said of it, if that is known. Raises NotFound where it is not there.
        """
        entry = entry or self.stat(uri)
        if entry is None:
            raise NotFound(uri)
        self._backend(uri).download(uri, path, entry)

    def upload(self, path: Path, uri: str) -> None:
        """Bring the file `path` to `uri`; it is visible there whole or not at all."""
        self._backend(uri).upload(path, uri)

    def delete(self, uri: str) -> None:
        """Remove the object at `uri`, if it is there."""
        self._backend(uri).delete(uri)

    def probe(self, uri: str) -> None:
        """Try what a run needs of the store on an object at `uri`, where there is none, and remove it.

        Raises RunFailure where it can't be written, and StorageUnsupported where the store lacks conditional writes
        or multipart uploads.
        """
        self._backend(uri).probe(uri)


def _s3(store: Store) -> Backend:
    from tunesmith_runtime.storage.s3 import S3  # boto3 takes a good part of a second to import

    return S3(store)


def _files() -> Backend:
    from tunesmith_runtime.storage.files import Files

    return Files()


def open_storage(store: Store) -> Storage:
    """The storage that a run sees: S3 at the store's endpoint, and local files."""
    return Storage({"s3": partial(_s3, store), "file": _files})
