"""Reads the files of media from a store, in several processes, and keeps them on the disk of the pod."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import get_ident

from tunesmith_api.quantities import bytes_of
from tunesmith_api.run import Store
from tunesmith_runtime.disk_space import used
from tunesmith_runtime.storage import Storage, open_storage

Read = Callable[[str], bytes | None]
"""Returns the content of an object; None if there is none."""
KEPT_SHARE = 0.5
"""Share of the free disk that kept files may take: checkpoints and results need the rest."""


@dataclass(frozen=True)
class StoreReader:
    """Reads objects of a store. A forked process opens the store anew, as processes cannot share its connections."""

    store: Store
    _opened: dict[int, Storage] = field(default_factory=dict)
    """By the id of the process."""

    def __call__(self, uri: str) -> bytes | None:
        """Return the content of an object; None if there is none."""
        process = os.getpid()
        if process not in self._opened:
            self._opened[process] = open_storage(self.store)
        return self._opened[process].read_bytes(uri)


@dataclass
class KeptFiles:
    """Keeps files on the disk of the pod, up to `most_bytes`. Of more data, the rest is read from the store in each pass."""

    read: Read
    folder: Path
    most_bytes: int
    kept_bytes: int = 0

    def __call__(self, uri: str) -> bytes | None:
        """Return the content of an object; None if there is none."""
        path = self.folder / hashlib.sha256(uri.encode()).hexdigest()
        try:
            return path.read_bytes()
        except FileNotFoundError:
            content = self.read(uri)
        if content is not None and self.kept_bytes + len(content) <= self.most_bytes:
            self._keep(path, content)
        return content

    def _keep(self, path: Path, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}-{get_ident()}")  # another thread or process may read the same file
        part.write_bytes(content)
        part.replace(path)
        self.kept_bytes += len(content)


def kept_bytes(root: Path, limit: str | int | None) -> int:
    """Return how many bytes of files may be kept below `root`, whose maximum size is `limit`."""
    free, most = shutil.disk_usage(root).free, bytes_of(limit or 0)
    return int(KEPT_SHARE * min(free, max(0, most - used(root)) if most else free))
