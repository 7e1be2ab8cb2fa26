"""Leases: which files of the cache a pod uses. A lease that is not renewed ends by itself, whatever happened to its pod."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

START_SECONDS = 24 * 3600.0
"""Length of a lease that fetch has taken: until the next container runs, whose image may still have to be pulled."""
LEASE_SECONDS = 15 * 60.0
"""Length of a lease after each renewal: longer than the kubelet waits before it restarts a container (5 minutes)."""
RENEW_SECONDS = 60.0


@dataclass(frozen=True)
class Leases:
    """The leases in a folder, one of which is this pod's. All but `renewed` need the cache's lock."""

    folder: Path
    holder: str

    def own(self) -> dict[str, int]:
        """Return the files of this pod's lease: sha256 -> size in bytes."""
        return _read(self.folder / self.holder) or {}

    def take(self, sizes: Mapping[str, int], seconds: float = START_SECONDS) -> None:
        """Replace this pod's lease by one on the files `sizes` that ends in `seconds`."""
        path = self.folder / self.holder
        partial = self.folder / f".{self.holder}-{secrets.token_hex(4)}"
        partial.write_text(json.dumps(sizes))
        os.utime(partial, (time.time(), time.time() + seconds))
        partial.replace(path)

    def live(self) -> dict[str, int]:
        """Return the files of all leases that have not ended: sha256 -> size in bytes. Leases that have ended are removed."""
        files: dict[str, int] = {}
        for path in self.folder.iterdir():
            if path.stat().st_mtime < time.time():
                path.unlink(missing_ok=True)
            else:
                files |= _read(path) or {}
        return files

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew this pod's lease within the block, if it has a lease."""
        path, done = self.folder / self.holder, threading.Event()
        thread = threading.Thread(target=_renew, args=(path, done), name="lease", daemon=True)
        if path.is_file():
            thread.start()
        try:
            yield
        finally:
            done.set()


def _renew(path: Path, done: threading.Event) -> None:
    while True:
        try:
            os.utime(path, (time.time(), time.time() + LEASE_SECONDS))
        except OSError as error:
            log.warning("cannot renew the lease %s on files of the cache: %s", path, error.strerror)
        if done.wait(RENEW_SECONDS):
            return


def _read(path: Path) -> dict[str, int] | None:
    try:
        return {str(sha256): int(size) for sha256, size in json.loads(path.read_text()).items()}
    except (OSError, ValueError):
        return None
