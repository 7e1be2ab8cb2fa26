"""file:///path: storage of local runs."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.storage import Entry
from tunesmith_runtime.storage.manifest import INCOMPLETE, sha256_of
from tunesmith_runtime.storage.parts import BLOCK_BYTES

CLASSES = {
    errno.ENOSPC: FailureClass.DISK_FULL,
    errno.EDQUOT: FailureClass.DISK_FULL,
    errno.EACCES: FailureClass.STORAGE_403,
    errno.EPERM: FailureClass.STORAGE_403,
    errno.EROFS: FailureClass.STORAGE_403,
}
HINTS = {
    FailureClass.STORAGE_403: "grant the pod's user read and write access there",
    FailureClass.STORAGE_UNREACHABLE: "check the path and the volume it is on",
}


@contextmanager
def disk_failures(where: str | Path) -> Iterator[None]:
    """Raise errors of the file system as RunFailure that names `where`."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(str(where)) from error
    except OSError as error:
        failure = CLASSES.get(error.errno or 0, FailureClass.STORAGE_UNREACHABLE)
        raise RunFailure(failure, f"{where}: {error.strerror or error}", HINTS.get(failure)) from error


def path_of(uri: str) -> Path:
    """Return the local path of a file:// URI."""
    return Path(unquote(uri.removeprefix("file://")))


def _entry(path: Path, name: str) -> Entry:
    return entry_of(name, path.stat())


def entry_of(name: str, status: os.stat_result) -> Entry:
    """Return the entry of a file with this status."""
    return Entry(name, status.st_size, f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside `target`, which is removed unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}{INCOMPLETE}-{secrets.token_hex(4)}")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def copy_hashed(source: BinaryIO, target: Path) -> str:
    """Copy an open file, reading it once. Return the sha256 of its content, as hex."""
    checksum, buffer = hashlib.sha256(), memoryview(bytearray(BLOCK_BYTES))
    with target.open("wb", buffering=0) as copy:
        while count := os.readv(source.fileno(), [buffer]):
            block = buffer[:count]
            checksum.update(block)
            while block:
                block = block[copy.write(block) :]
    return checksum.hexdigest()


class Files:
    """Local files, written atomically: a file has its name only once it is complete."""

    def stat(self, uri: str) -> Entry | None:
        path = path_of(uri)
        with disk_failures(uri):
            return _entry(path, path.name) if path.is_file() else None

    def list(self, uri: str) -> list[Entry]:
        root = path_of(uri)
        with disk_failures(uri):
            paths = [path for path in root.rglob("*") if path.is_file() and INCOMPLETE not in path.name]
            return sorted(
                (_entry(path, path.relative_to(root).as_posix()) for path in paths), key=lambda entry: entry.path
            )

    def read_bytes(self, uri: str) -> bytes | None:
        path = path_of(uri)
        with disk_failures(uri):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        with disk_failures(uri), path_of(uri).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def write_bytes(self, uri: str, content: bytes, if_absent: bool) -> bool:
        target = path_of(uri)
        with disk_failures(uri), beside(target) as partial:
            partial.write_bytes(content)
            if not if_absent:
                partial.replace(target)
                return True
            try:
                os.link(partial, target)
            except FileExistsError:
                return False
            return True

    def replace_bytes(self, uri: str, content: bytes, etag: str) -> bool:
        target = path_of(uri)
        with disk_failures(uri), beside(target) as partial, _locked(target.parent):
            if not target.is_file() or _entry(target, target.name).etag != etag:
                return False
            partial.write_bytes(content)
            partial.replace(target)
            return True

    def fingerprint(self, uri: str, entry: Entry) -> str:
        with disk_failures(uri):
            return sha256_of(path_of(uri))

    def download(self, uri: str, path: Path, entry: Entry) -> str:
        with disk_failures(uri), path_of(uri).open("rb", buffering=0) as file, beside(path) as partial:
            sha256 = copy_hashed(file, partial)
            partial.replace(path)
            return sha256

    def upload(self, path: Path, uri: str, is_addressed: bool) -> None:
        target = path_of(uri)
        with disk_failures(uri), beside(target) as partial:
            shutil.copyfile(path, partial)
            try:
                partial.replace(target)
            except FileNotFoundError:  # another pod has completed the folder, and discarded what it took for remains
                if not (is_addressed and target.is_file() and target.stat().st_size == path.stat().st_size):
                    raise

    def discard_uploads(self, uri: str) -> None:
        with disk_failures(uri):
            for partial in path_of(uri).rglob(f"*{INCOMPLETE}-????????"):
                partial.unlink(missing_ok=True)

    def copy(self, source: str, target: str) -> None:
        with disk_failures(source), beside(path_of(target)) as partial:
            try:
                os.link(path_of(source), partial)
            except FileNotFoundError:
                raise
            except OSError:  # the file system has no hard links
                shutil.copyfile(path_of(source), partial)
            partial.replace(path_of(target))

    def delete(self, uri: str) -> None:
        path = path_of(uri)
        with disk_failures(uri):
            path.unlink(missing_ok=True)
            with suppress(OSError):  # as in object storage, a folder exists only while it is not empty
                path.parent.rmdir()

    def probe(self, uri: str) -> None:
        self.write_bytes(uri, b"", if_absent=False)
        self.delete(uri)
