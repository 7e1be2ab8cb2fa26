"""The files of the cache, by the sha256 of their content. A file is in place only when it is complete."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tunesmith_runtime.cache.eviction import Blob
from tunesmith_runtime.storage.files import entry_of
from tunesmith_runtime.storage.manifest import ManifestFile, sha256_of

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DATA = "data"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`. The kernel releases the lock of a process that ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Blobs:
    """The files below the cache's folder `root`."""

    root: Path

    def prepare(self) -> None:
        """Create the folders. Raises OSError if the cache cannot be written."""
        for name in ("leases", "blobs", "incoming", "locks", "names", "trash"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "lock").touch()

    def all(self) -> list[Blob]:
        """Return the files in the cache."""
        found = []
        for folder in (self.root / "blobs").iterdir():
            with suppress(FileNotFoundError):
                found.append(Blob(folder.name, (folder / DATA).stat().st_size, folder.stat().st_mtime))
        return found

    def obtain(self, file: ManifestFile, write: Callable[[Path], str]) -> tuple[Path, bool] | None:
        """Return the path of a verified file, and whether it was in the cache before.

        A file that is missing is written by `write` (path), which returns the sha256 of what it has written, and resumes what an
        earlier call has left there. None if the content is not that of `file`. Of several pods that need a file, one writes it, and the others wait.
        """
        with locked(self.root / "locks" / file.sha256[:2]):
            if (path := self._verified(file)) is not None:
                return path, True
            incoming = self.root / "incoming" / file.sha256
            incoming.mkdir(exist_ok=True)
            if write(incoming / DATA) != file.sha256:
                self._discard(incoming)
                return None
            (incoming / DATA).chmod(0o444)
            folder = self.root / "blobs" / file.sha256
            self._discard(folder)
            incoming.rename(folder)
            self._record(folder)
            return folder / DATA, False

    def evict(self, sha256: str) -> None:
        """Remove a file. Needs the cache's lock, and that no lease has the file."""
        self._discard(self.root / "blobs" / sha256)

    def clean(self, leased: set[str]) -> None:
        """Remove what interrupted pods have left: incoming files without a lease, and trash. Needs the cache's lock."""
        for folder in (self.root / "incoming").iterdir():
            if folder.name not in leased:
                self._discard(folder)
        for folder in (self.root / "trash").iterdir():
            shutil.rmtree(folder, ignore_errors=True)

    def _verified(self, file: ManifestFile) -> Path | None:
        """Return the path of a file in the cache; None if there is none. A damaged file is removed."""
        folder = self.root / "blobs" / file.sha256
        path = folder / DATA
        if not path.is_file():
            return None
        record = folder / self._record_name
        if not record.is_file() or record.read_text() != _stamp(path):
            if path.stat().st_size != file.size_bytes or sha256_of(path) != file.sha256:
                self._discard(folder)
                return None
            self._record(folder)
        os.utime(folder)
        return path

    def _record(self, folder: Path) -> None:
        """Record that the file of a folder was verified."""
        partial = folder / f".{secrets.token_hex(4)}"
        partial.write_text(_stamp(folder / DATA))
        partial.replace(folder / self._record_name)

    @cached_property
    def _record_name(self) -> str:
        """After a boot everything is verified again: an interrupted write may have left a file of the right size."""
        boot = BOOT_ID.read_text().strip() if BOOT_ID.is_file() else "unknown"
        return f"verified-{boot}"

    def _discard(self, folder: Path) -> None:
        """Remove a folder at once, so that no pod finds a part of it."""
        trash = self.root / "trash" / secrets.token_hex(8)
        with suppress(FileNotFoundError):
            folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _stamp(path: Path) -> str:
    return entry_of(DATA, path.stat()).etag
