"""The files of a model wherever it is: in the store, on a hub or on a web server, read without a download of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunesmith_runtime.fetch.names import GGUF, SAFE
from tunesmith_runtime.storage import Entry, Storage, join


class ModelFiles(Protocol):
    """The files of a folder. Failures are RunFailure with the URI."""

    @property
    def uri(self) -> str:
        """URI of the folder, for messages."""

    def list(self) -> list[Entry]:
        """Return the files."""

    def read_bytes(self, path: str) -> bytes | None:
        """Return the content of a small file; None if there is none."""

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return up to `length` bytes of a file from the byte `start` on."""

    def download(self, entry: Entry, target: Path) -> None:
        """Download a file to `target`."""


@dataclass(frozen=True)
class StoredFiles:
    """The files of a folder in the store, or the only one that is the model."""

    storage: Storage
    uri: str
    only: str | None = None

    def list(self) -> list[Entry]:
        """Return the files."""
        return [entry for entry in self.storage.list(self.uri) if self.only in (None, entry.path)]

    def read_bytes(self, path: str) -> bytes | None:
        """Return the content of a small file; None if there is none."""
        return self.storage.read_bytes(join(self.uri, path)) if self.only in (None, path) else None

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return up to `length` bytes of a file from the byte `start` on."""
        return self.storage.read_range(join(self.uri, path), start, length)

    def download(self, entry: Entry, target: Path) -> None:
        """Download a file to `target`."""
        self.storage.download(join(self.uri, entry.path), target, entry)


def gguf_in(files: ModelFiles) -> Entry | None:
    """Return the GGUF file that is the model; None for a model in safetensors."""
    entries = files.list()
    if any(entry.path.endswith(SAFE) for entry in entries):
        return None
    return next((entry for entry in entries if entry.path.endswith(GGUF)), None)
