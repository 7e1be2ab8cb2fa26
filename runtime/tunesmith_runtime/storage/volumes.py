"""pvc://claim/path: files in the volumes of PersistentVolumeClaims, which the operator mounts read-only into the pod.

Whoever fills a volume decides what its links point to, so every file is opened first and then checked to be a regular file
of the volume. Links within a volume are followed, as the cache folder of a hub's client has them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import NoReturn

from tunesmith_api.failures import FailureClass
from tunesmith_api.volumes import VOLUMES, split_claim
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.storage import Entry
from tunesmith_runtime.storage.files import CLASSES, beside, copy_hashed, entry_of
from tunesmith_runtime.storage.manifest import INCOMPLETE, sha256_of_file

MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})
HINTS = {
    FailureClass.STORAGE_403: f"run chmod -R a+rX on the files, in a pod that mounts the claim for writing: pods read them as user {os.geteuid()}",
    FailureClass.STORAGE_UNREACHABLE: "check the volume of the claim, and the disk or file server behind it",
}
LOST_AND_FOUND = "lost+found"
"""Folder that only root may read, at the root of ext4 volumes."""
PATHS_TO_A_FOLDER = 100
"""Paths by which links may lead to a folder. Folders that link to each other twice have a number that doubles at each level."""


class Volumes:
    """The mounted volumes. They are read only: all writes are refused."""

    def __init__(self, root: Path = Path(VOLUMES)) -> None:
        self._root = root

    def stat(self, uri: str) -> Entry | None:
        volume, path = self._place(uri)
        with _failures(uri):
            try:
                status = _within(uri, volume, path).stat()
            except OSError as error:
                if error.errno in MISSING:
                    return None
                raise
        return entry_of(path.name, status) if stat.S_ISREG(status.st_mode) else None

    def list(self, uri: str) -> list[Entry]:
        """Return all files below a folder but those in hidden folders, such as snapshots of a file server."""
        volume, path = self._place(uri)
        with _failures(uri):
            if not path.is_dir():
                return []
            files = _Walk(uri, volume).files(_within(uri, volume, path))
            return sorted((entry_of(name, status) for name, status in files), key=lambda entry: entry.path)

    def read_bytes(self, uri: str) -> bytes | None:
        try:
            with self._open(uri) as file:
                return file.read()
        except NotFound:
            return None

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        with self._open(uri) as file:
            file.seek(start)
            return file.read(length)

    def fingerprint(self, uri: str, entry: Entry) -> str:
        with self._open(uri) as file:
            digest = sha256_of_file(file)
            _check_unchanged(uri, file, entry)
            return digest

    def download(self, uri: str, path: Path, entry: Entry) -> str:
        with self._open(uri) as file, beside(path) as partial:
            sha256 = copy_hashed(file, partial)
            _check_unchanged(uri, file, entry)
            partial.replace(path)
            return sha256

    def write_bytes(self, uri: str, content: bytes, if_absent: bool) -> bool:
        _refuse(uri)

    def replace_bytes(self, uri: str, content: bytes, etag: str) -> bool:
        _refuse(uri)

    def upload(self, path: Path, uri: str, is_addressed: bool) -> None:
        _refuse(uri)

    def discard_uploads(self, uri: str) -> None:
        _refuse(uri)

    def copy(self, source: str, target: str) -> None:
        _refuse(target)

    def delete(self, uri: str) -> None:
        _refuse(uri)

    def probe(self, uri: str) -> None:
        _refuse(uri)

    def _place(self, uri: str) -> tuple[Path, Path]:
        """Return the real folder of the volume, and the path in it. Raises RunFailure (BadSpec)."""
        claim, path = split_claim(uri)
        if ".." in (claim, *path.split("/")):
            raise _leads_out(uri, "its path has ..")
        volume = self._root / claim
        if not claim or not volume.is_dir():
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"{uri}: no volume of PersistentVolumeClaim {claim!r} is mounted at {volume}",
                "write the pvc:// URI into the spec itself: pods mount only the claims that the spec's own URIs name",
            )
        volume = volume.resolve()
        return volume, volume / path

    @contextmanager
    def _open(self, uri: str) -> Iterator[BufferedReader]:
        """Open a regular file of a volume. Raises NotFound, and RunFailure if it is not in the volume."""
        volume, path = self._place(uri)
        with _failures(uri):
            # Without O_NONBLOCK, opening a named pipe would wait for its writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                real = os.readlink(f"/proc/self/fd/{descriptor}")
                if not Path(real).is_relative_to(volume):
                    raise _leads_out(uri, f"it is {real}")
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise NotFound(uri, f"{uri} is not a file")
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    yield file
            finally:
                os.close(descriptor)


def _within(uri: str, volume: Path, path: Path) -> Path:
    """Return the real path of `path`. Raises OSError if it does not exist, and RunFailure if it is not in the volume."""
    try:
        real = path.resolve(strict=True)
    except RuntimeError as error:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
    if not real.is_relative_to(volume):
        raise _leads_out(uri, f"{path.relative_to(volume)} links to {real}")
    return real


@dataclass
class _Walk:
    """A walk through a folder of a volume that follows links."""

    uri: str
    volume: Path
    paths: Counter[Path] = field(default_factory=Counter)
    """Real folder -> the number of paths by which the walk has come to it."""

    def files(self, folder: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[str, os.stat_result]]:
        """Yield path and status of every file below the real `folder`; `above` are the real folders that led to it."""
        self._count(folder, above)
        for item in os.scandir(folder):
            is_hidden = item.name.startswith(".") and item.is_dir()
            if is_hidden or item.name == LOST_AND_FOUND or INCOMPLETE in item.name:
                continue
            try:
                real = _within(self.uri, self.volume, folder / item.name)
                status = real.stat()
            except OSError as error:
                if error.errno in MISSING:  # deleted meanwhile, or a link to nothing
                    continue
                raise
            if stat.S_ISDIR(status.st_mode):
                for name, below in self.files(real, (*above, folder)):
                    yield f"{item.name}/{name}", below
            elif stat.S_ISREG(status.st_mode):
                yield item.name, status

    def _count(self, folder: Path, above: tuple[Path, ...]) -> None:
        """Count a path to a folder. Raises RunFailure (BadSpec) for a folder that contains itself, and for too many paths."""
        name = folder.relative_to(self.volume)
        if folder in above:
            message = f"{self.uri}: the folder {name} contains a link to itself"
            raise RunFailure(FailureClass.BAD_SPEC, message, "remove the link")
        self.paths[folder] += 1
        if self.paths[folder] > PATHS_TO_A_FOLDER:
            message = f"{self.uri}: links lead to the folder {name} by more than {PATHS_TO_A_FOLDER} paths"
            raise RunFailure(FailureClass.BAD_SPEC, message, f"name {name} itself, or remove links to folders")


def _check_unchanged(uri: str, file: BufferedReader, entry: Entry) -> None:
    """Raise RunFailure (StorageCorrupt) if the open file is not that of `entry`."""
    if entry_of(entry.path, os.fstat(file.fileno())).etag != entry.etag:
        raise RunFailure(
            FailureClass.STORAGE_CORRUPT,
            f"{uri} changed while it was read",
            "write changed data under new names",
        )


@contextmanager
def _failures(uri: str) -> Iterator[None]:
    """Raise errors of the file system as RunFailure that names `uri`."""
    try:
        yield
    except OSError as error:
        if error.errno in MISSING:
            raise NotFound(uri) from error
        failure = CLASSES.get(error.errno or 0, FailureClass.STORAGE_UNREACHABLE)
        where = uri if error.filename is None else f"{uri} ({error.filename})"
        raise RunFailure(failure, f"{where}: {error.strerror or error}", HINTS.get(failure)) from error


def _leads_out(uri: str, how: str) -> RunFailure:
    return RunFailure(
        FailureClass.BAD_SPEC,
        f"{uri} is not in the volume of its claim: {how}",
        "copy the file into the volume, and name it by its own path",
    )


def _refuse(uri: str) -> NoReturn:
    raise RunFailure(
        FailureClass.BAD_SPEC, f"{uri}: volumes are mounted read-only, so nothing is written there", "use s3://"
    )
