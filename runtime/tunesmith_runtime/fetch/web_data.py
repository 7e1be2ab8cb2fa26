"""Data files on web servers: https://HOST/PATH of a single file, without credentials."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch import https
from tunesmith_runtime.fetch.data import Data, DataSource
from tunesmith_runtime.fetch.hub_types import DATA_SET
from tunesmith_runtime.storage import Entry, name_of
from tunesmith_runtime.storage.files import disk_failures


def find_web_data(source: DataSource) -> Data:
    """Find a file on a web server. Its fingerprint holds the ETag; if the server sends none, the sha256 of the content.

    Raises RunFailure (DatasetNotFound, HubForbidden, HubRateLimited, HubUnreachable).
    """
    file = https.look_up(source.uri, DATA_SET)
    origin = WebOrigin(file)
    fingerprint = file.fingerprint or origin.read_ahead()
    size = 1 if file.size_bytes is None else file.size_bytes  # an unknown size does not count as empty
    entry = Entry(name_of(source.uri), size, file.etag)
    return Data(source.uri, {source.uri: entry}, fingerprint, source, origin=origin)


@dataclass(eq=False)
class WebOrigin:
    """The server of a file."""

    file: https.WebFile
    sha256: str | None = None
    """Of the content that identifies the data, if the server does not identify versions."""
    ahead: Path | None = None
    """That content, until it is asked for."""

    def read_ahead(self) -> str:
        """Download the file into a temporary folder, for the first call of `download`; return its sha256. Raises RunFailure."""
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.ahead = Path(folder) / "data"
        self.sha256 = https.download(self.file, self.ahead)
        return self.sha256

    def read_range(self, uri: str, entry: Entry, start: int, length: int) -> bytes:
        """Return up to `length` bytes of the file from the byte `start` on. Raises RunFailure."""
        if self.ahead is None:
            return https.read_range(self.file, start, length)
        with disk_failures(self.ahead), self.ahead.open("rb") as content:
            content.seek(start)
            return content.read(length)

    def download(self, uri: str, path: Path, entry: Entry | None = None) -> None:
        """Get the file to `path`. Raises RunFailure, HubCorrupt if its content is no longer that of `sha256`."""
        if self.ahead is not None:
            with disk_failures(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(self.ahead, path)
            self.ahead = None
            return
        sha256 = https.download(self.file, path)
        if self.sha256 not in (None, sha256):
            path.unlink()
            raise RunFailure(FailureClass.HUB_CORRUPT, f"data set {uri} has changed since the run was identified")
