"""Downloads a folder through the cache: its large files become links into the cache, the others are copied as ever."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunesmith_runtime.cache.blobs import Blobs, locked
from tunesmith_runtime.cache.eviction import choose_evictions
from tunesmith_runtime.cache.leases import Leases
from tunesmith_runtime.cache.names import Names
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage import Entry, Storage, join
from tunesmith_runtime.storage.directory import download_directory, read_manifest
from tunesmith_runtime.storage.files import copy_hashed
from tunesmith_runtime.storage.manifest import MANIFEST, Manifest, ManifestFile

log = logging.getLogger(__name__)

SMALLEST_BYTES = 1 << 18
"""Smaller files are not worth a link."""
KEPT_FREE = 0.15
"""Share of the disk that the cache leaves free: the kubelet evicts pods from a node whose disk has less than a tenth left."""


@dataclass(frozen=True)
class Cache:
    """The cache, as the fetch container of a pod uses it."""

    root: Path
    blobs: Blobs
    leases: Leases
    names: Names
    limit_bytes: int | None
    """Bound of the size of all its files; None: only the disk bounds it."""

    def takes(self, entry: Entry) -> bool:
        """Whether a file of a model is kept in the cache, if it has room."""
        return entry.size_bytes >= SMALLEST_BYTES

    def prepare(self) -> bool:
        """Create the folders of the cache. Returns whether it can be used."""
        with self._optional("be used") as state:
            self.blobs.prepare()
        return state.works

    def download_directory(
        self, storage: Storage, uri: str, directory: Path, keep: Callable[[str], bool] = lambda path: True
    ) -> Manifest:
        """Like storage.directory.download_directory, with large files as links into the cache."""
        entries = {entry.path: entry for entry in storage.list(uri) if entry.path != MANIFEST and keep(entry.path)}
        if (manifest := read_manifest(storage, uri)) is not None:
            files = [file for file in manifest.files if file.path in entries and self.takes(entries[file.path])]
            links = self._obtain(storage, uri, directory, files)
            download_directory(storage, uri, directory, lambda path: keep(path) and path not in links)
        else:
            manifest, links = self._download_unlisted(storage, uri, directory, entries)
        for path, target in links.items():
            _link(directory / path, target)
        return manifest

    def _download_unlisted(
        self, storage: Storage, uri: str, directory: Path, entries: Mapping[str, Entry]
    ) -> tuple[Manifest, dict[str, Path]]:
        """Download a folder without manifest. Returns its manifest, and the paths in the cache of the files to link.

        The sha256 of a file is known if pods of this namespace have read the object before. Others enter the cache afterwards.
        """
        large = {path: entry for path, entry in entries.items() if self.takes(entry)}
        shas = {path: self.names.find(join(uri, path), entry) for path, entry in large.items()}
        known = [
            ManifestFile(path=path, size_bytes=large[path].size_bytes, sha256=sha) for path, sha in shas.items() if sha
        ]
        links = self._obtain(storage, uri, directory, known)
        files = [file for file in known if file.path in links]
        if not links or links.keys() != entries.keys():
            rest = download_directory(storage, uri, directory, lambda path: path in entries and path not in links).files
            added = self._obtain(storage, uri, directory, [file for file in rest if file.path in large])
            # An object that was replaced meanwhile has the content of another etag.
            unchanged = {entry.path for entry in (storage.list(uri) if added else ()) if entry == large.get(entry.path)}
            with self._optional("record what it holds"):
                for file in (file for file in rest if file.path in added.keys() & unchanged):
                    self.names.record(join(uri, file.path), large[file.path], file.sha256)
            files, links = [*files, *rest], links | added
        manifest = Manifest(files=sorted(files, key=lambda file: file.path))
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MANIFEST).write_bytes(manifest.model_dump_json(by_alias=True, indent=1).encode())
        return manifest, links

    def _obtain(self, storage: Storage, uri: str, directory: Path, files: list[ManifestFile]) -> dict[str, Path]:
        """Return the paths in the cache of those files that it holds, or can hold. Files that are missing are added."""
        links: dict[str, Path] = {}
        started, reused = time.monotonic(), 0
        with self._optional("be used"):
            if not files or not self._lease({file.sha256: file.size_bytes for file in files}):
                return links
            for file in files:
                write = _writer(storage, join(uri, file.path), directory / file.path, file)
                if (held := self.blobs.obtain(file, write)) is not None:
                    links[file.path] = held[0]
                    reused += file.size_bytes if held[1] else 0
        if links:
            size = sum(file.size_bytes for file in files)
            log.info(
                "%s: %.1f of %.1f MB from the cache, in %.1f s",
                uri,
                reused / 1e6,
                size / 1e6,
                time.monotonic() - started,
            )
        return links

    def _lease(self, sizes: dict[str, int]) -> bool:
        """Lease files for this pod, and evict others to make room for them. Returns whether they fit."""
        self.blobs.prepare()
        with locked(self.root / "lock"):
            own = self.leases.own() | sizes
            leased = self.leases.live() | own
            disk = shutil.disk_usage(self.root)
            free = disk.free - int(KEPT_FREE * disk.total)
            evicted = choose_evictions(self.blobs.all(), leased, self.limit_bytes, free)
            if evicted is None:
                log.warning(
                    "the cache has no room for %.1f MB beside the files that pods use; raise cache.maxBytes in the chart's "
                    "values, or free space on its disk",
                    sum(sizes.values()) / 1e6,
                )
                return False
            self.leases.take(own)
            self.blobs.clean(set(leased))
            for blob in evicted:
                log.info("evicted %s (%.1f MB) from the cache", blob.sha256[:12], blob.size_bytes / 1e6)
                self.blobs.evict(blob.sha256)
        return True

    @contextmanager
    def _optional(self, purpose: str) -> Iterator[_State]:
        """Log errors of the cache instead of raising them: without the cache everything is downloaded."""
        state = _State()
        try:
            yield state
        except OSError as error:
            state.works = False
            self._warn(purpose, error)
        except RunFailure as failure:
            if not isinstance(failure.__cause__, OSError):
                raise
            state.works = False
            self._warn(purpose, failure.__cause__)

    def _warn(self, purpose: str, error: OSError) -> None:
        user = f"{os.geteuid()}:{os.getegid()}"
        hint = f"; run chown -R {user} on its folder" if error.errno in (errno.EACCES, errno.EPERM) else ""
        log.warning("the cache cannot %s, so files are downloaded without it: %s%s", purpose, error, hint)


@dataclass
class _State:
    """Whether the cache works."""

    works: bool = True


def _writer(storage: Storage, uri: str, local: Path, file: ManifestFile) -> Callable[[Path], str]:
    """Return what writes a file to a path: by a copy of the local file, if that was downloaded already, or by a download."""

    def write(path: Path) -> str:
        if local.is_file() and not local.is_symlink() and local.stat().st_size == file.size_bytes:
            path.unlink(missing_ok=True)  # of an interrupted pod, and read-only
            with local.open("rb", buffering=0) as content:
                return copy_hashed(content, path)
        return storage.download(uri, path)

    return write


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
