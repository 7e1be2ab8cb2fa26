"""Finished files of an import that is not finished: <import>/parts/DIGEST/PATH in the store.

A file is uploaded there as soon as it is downloaded and verified. The next pod that imports the model takes it from there, so
only the missing files are downloaded again. The name has the hub's own digest of the content, which is verified again when
the file is taken: a part of an older revision is never used. The parts are deleted when the import is published.
"""

from __future__ import annotations

import logging
from pathlib import Path

from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.hub_types import HubFile, digests_of
from tunesmith_runtime.storage import Entry, Storage, join

log = logging.getLogger(__name__)

PARTS = "parts"


class Parts:
    """The parts of one import. Safe to use from threads, and by several pods at a time."""

    def __init__(self, storage: Storage, import_uri: str) -> None:
        self._storage, self._uri = storage, join(import_uri, PARTS)
        self._found: dict[str, Entry] | None = None
        self._present: dict[str, tuple[str, str]] = {}

    @property
    def present(self) -> dict[str, tuple[str, str]]:
        """Path -> URI and sha256 of each part that this process has uploaded or taken."""
        return dict(self._present)

    def find(self) -> None:
        """Read which parts there are."""
        self._found = {entry.path: entry for entry in self._storage.list(self._uri)}

    def take(self, file: HubFile, directory: Path) -> bool:
        """Download a part to DIRECTORY/PATH. Returns whether there is one with the right content; a damaged one is deleted."""
        if self._found is None:
            self.find()
        name = _name_of(file)
        entry = (self._found or {}).get(name) if name else None
        if entry is None or name is None or file.digest is None or file.size_bytes not in (None, entry.size_bytes):
            return False
        uri, path = join(self._uri, name), directory / file.path
        try:
            sha256 = self._storage.download(uri, path, entry)
        except RunFailure as failure:
            log.warning("cannot read the part %s: %s", uri, failure.message)
            path.unlink(missing_ok=True)
            return False
        found = sha256 if file.digest.kind == "sha256" else digests_of(path)[file.digest.kind]
        if found != file.digest.hex:
            log.warning("the part %s is damaged; downloading the file again", uri)
            path.unlink(missing_ok=True)
            self._storage.delete(uri)
            return False
        self._present[file.path] = uri, sha256
        return True

    def keep(self, file: HubFile, directory: Path, sha256: str) -> None:
        """Upload a verified file. A file without a digest is not kept. A store that refuses it is only logged."""
        name = _name_of(file)
        if name is None:
            return
        uri = join(self._uri, name)
        try:
            self._storage.upload(directory / file.path, uri, is_addressed=True)
        except RunFailure as failure:
            log.warning("cannot keep %s for the next attempt: %s", file.path, failure.message)
            return
        self._present[file.path] = uri, sha256

    def delete(self) -> None:
        """Delete all parts. A failure is only logged, as the parts do no harm."""
        try:
            for entry in self._storage.list(self._uri):
                self._storage.delete(join(self._uri, entry.path))
            self._storage.discard_uploads(self._uri)
        except RunFailure as failure:
            log.warning("cannot delete %s: %s", self._uri, failure.message)


def _name_of(file: HubFile) -> str | None:
    return f"{file.digest.kind}-{file.digest.hex}/{file.path}" if file.digest else None
