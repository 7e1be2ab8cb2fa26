"""Folders: uploaded with the manifest last, downloaded with every file verified."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tunesmith_api.failures import FailureClass
from tunesmith_api.status import Artifact
from tunesmith_runtime.errors import NotFound, RunFailure, StopRequested
from tunesmith_runtime.storage import Entry, Storage, join
from tunesmith_runtime.storage.manifest import (
    FILES_AT_ONCE,
    INCOMPLETE,
    MANIFEST,
    Manifest,
    ManifestFile,
    inside,
    manifest_of,
    sha256_of,
)

log = logging.getLogger(__name__)

Item = TypeVar("Item")


def _run_for_each(work: Callable[[Item], None], files: Iterable[Item]) -> None:
    """Call `work` for some files at a time. Raises the first failure, or StopRequested without waiting for files in progress."""
    pool, wait = ThreadPoolExecutor(FILES_AT_ONCE), True
    try:
        for future in [pool.submit(work, file) for file in files]:
            future.result()
    except StopRequested:  # the process ends now, and a partial folder has no manifest
        wait = False
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)


def read_manifest(storage: Storage, uri: str) -> Manifest | None:
    """Return the manifest of the folder `uri`; None if it has none, because it is incomplete or was not published by us."""
    content = storage.read_bytes(join(uri, MANIFEST))
    return None if content is None or b'"files"' not in content else Manifest.parse(content, join(uri, MANIFEST))


def upload_directory(storage: Storage, directory: Path, uri: str) -> Manifest:
    """Upload a local folder to `uri`, its manifest last. If the manifest is already there, nothing is uploaded."""
    manifest = manifest_of(directory)
    _upload(storage, directory, uri, manifest, is_addressed=False, present={})
    return manifest


def publish_directory(
    storage: Storage, directory: Path, parent: str, name: str, present: Mapping[str, tuple[str, str]] | None = None
) -> Artifact:
    """Upload a local folder to PARENT/NAME-DIGEST.

    `present`: path -> URI and sha256 of objects that the store has already. A file with that sha256 is copied from there.

    The name contains the digest of the content: pods with different results never write into the same folder, and pods with
    equal results write equal bytes. Hence files that an interrupted upload has left there are complete, and are not sent again.
    """
    manifest = manifest_of(directory)
    uri = join(parent, f"{name}-{manifest.digest[:12]}")
    _upload(storage, directory, uri, manifest, is_addressed=True, present=present or {})
    return Artifact(name=name, uri=uri, digest=manifest.digest, size_bytes=manifest.size_bytes)


def _upload(
    storage: Storage,
    directory: Path,
    uri: str,
    manifest: Manifest,
    is_addressed: bool,
    present: Mapping[str, tuple[str, str]],
) -> None:
    """Upload the files of `manifest` and then the manifest, unless it is there. `is_addressed`: see Storage.upload."""

    def send(file: ManifestFile) -> None:
        target, (source, sha256) = join(uri, file.path), present.get(file.path, ("", ""))
        if sha256 != file.sha256 or not _copied(storage, source, target):
            storage.upload(directory / file.path, target, is_addressed)

    started = time.monotonic()
    there = {entry.path: entry.size_bytes for entry in storage.list(uri)}
    if MANIFEST in there and read_manifest(storage, uri) == manifest:
        return
    kept = {file.path for file in manifest.files if is_addressed and there.get(file.path) == file.size_bytes}
    sent = [file for file in manifest.files if file.path not in kept]
    _run_for_each(send, sent)
    storage.write_bytes(join(uri, MANIFEST), manifest.model_dump_json(by_alias=True, indent=1).encode())
    if is_addressed:
        storage.discard_uploads(uri)
    size_bytes, seconds = sum(file.size_bytes for file in sent), time.monotonic() - started
    log.info("uploaded %s: %s%s", uri, rate(size_bytes, seconds), f"; {len(kept)} files were there" if kept else "")


def _copied(storage: Storage, source: str, target: str) -> bool:
    """Copy an object within the store. Returns whether that succeeded: some stores have no copies, and it may be gone."""
    try:
        storage.copy(source, target)
    except RunFailure as failure:
        log.warning("uploading %s, as it cannot be copied: %s", target, failure.message)
        return False
    return True


def _verified(path: Path, file: ManifestFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size_bytes and sha256_of(path) == file.sha256


def download_directory(
    storage: Storage, uri: str, directory: Path, keep: Callable[[str], bool] = lambda path: True
) -> Manifest:
    """Download the folder `uri` to a local folder. Verified files there are kept, files that do not belong are removed.

    If the folder has a manifest, each file is verified, and a file that does not match is downloaded once more before
    StorageCorrupt is raised. Without a manifest, files are downloaded as they are. Only paths that `keep` accepts are
    downloaded. Returns the folder's manifest, or a manifest of the downloaded files. Raises NotFound for an empty folder,
    and DiskFull before the download.
    """
    started = time.monotonic()
    manifest = read_manifest(storage, uri)
    entries = {entry.path: entry for entry in storage.list(uri) if entry.path != MANIFEST and keep(entry.path)}
    files = [file for file in manifest.files if keep(file.path)] if manifest else []
    if not entries and manifest is None:
        raise NotFound(uri)
    _refuse_paths_outside(uri, entries)
    wanted = set(entries) if manifest is None else {file.path for file in files}
    _remove_others(directory, wanted)
    _check_room(uri, directory, entries)
    if manifest is None:
        result = _download_unlisted(storage, uri, directory, entries)
    else:
        _run_for_each(lambda file: _download_verified(storage, uri, directory, file, entries.get(file.path)), files)
        result = manifest
    (directory / MANIFEST).write_bytes(result.model_dump_json(by_alias=True, indent=1).encode())
    size = sum(file.size_bytes for file in (files or result.files) if keep(file.path))
    log.info("downloaded %s: %s", uri, rate(size, time.monotonic() - started))
    return result


def _download_unlisted(storage: Storage, uri: str, directory: Path, entries: dict[str, Entry]) -> Manifest:
    found: dict[str, ManifestFile] = {}

    def fetch(path: str) -> None:
        sha256 = storage.download(join(uri, path), directory / path, entries[path])
        found[path] = ManifestFile(path=path, size_bytes=entries[path].size_bytes, sha256=sha256)

    _run_for_each(fetch, entries)
    return Manifest(files=[found[path] for path in sorted(entries)])


def _download_verified(storage: Storage, uri: str, directory: Path, file: ManifestFile, entry: Entry | None) -> None:
    path, source = directory / file.path, join(uri, file.path)
    if _verified(path, file):
        return
    if entry is None or entry.size_bytes != file.size_bytes:
        size = "is missing" if entry is None else f"has {entry.size_bytes} bytes"
        raise RunFailure(FailureClass.STORAGE_CORRUPT, f"{source} {size}, its manifest lists {file.size_bytes} bytes")
    for _ in range(2):  # the remains of an earlier download may be damaged: the second one starts over
        path.unlink(missing_ok=True)
        if storage.download(source, path, entry) == file.sha256:
            return
        path.unlink()
    raise RunFailure(FailureClass.STORAGE_CORRUPT, f"{source} does not match the sha256 {file.sha256} of its manifest")


def _refuse_paths_outside(uri: str, paths: Iterable[str]) -> None:
    """Raise RunFailure (StorageCorrupt) if the key of an object would be written outside of the local folder."""
    for path in paths:
        try:
            inside(path)
        except ValueError as error:
            raise RunFailure(FailureClass.STORAGE_CORRUPT, f"{uri}: {error}", f"delete {join(uri, path)}") from error


def _remove_others(directory: Path, wanted: set[str]) -> None:
    """Remove files that do not belong into a local folder, such as those of another model."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in sorted(directory.rglob("*"), reverse=True):
        name = path.relative_to(directory).as_posix()
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif name.partition(INCOMPLETE)[0] not in wanted:
            path.unlink()


def _check_room(uri: str, directory: Path, entries: dict[str, Entry]) -> None:
    """Raise RunFailure (DiskFull) if the missing parts of `entries` do not fit on the disk of `directory`."""
    there = {path: (directory / path).stat().st_size for path in entries if (directory / path).is_file()}
    needed = sum(entry.size_bytes - there.get(path, 0) for path, entry in entries.items())
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise RunFailure(
            FailureClass.DISK_FULL,
            f"{uri} takes {needed / 1e9:.1f} GB more, and {directory} has {free / 1e9:.1f} GB free",
        )


def delete_directory(storage: Storage, uri: str) -> None:
    """Delete a folder, its manifest first, so that no reader takes a partly deleted folder as complete."""
    storage.delete(join(uri, MANIFEST))
    storage.discard_uploads(uri)
    for entry in storage.list(uri):
        storage.delete(join(uri, entry.path))


def rate(size_bytes: int, seconds: float) -> str:
    """Return a text such as `269 MB in 1.9 s (141 MB/s)`."""
    return f"{size_bytes / 1e6:.1f} MB in {seconds:.1f} s ({size_bytes / 1e6 / max(seconds, 1e-3):.0f} MB/s)"
