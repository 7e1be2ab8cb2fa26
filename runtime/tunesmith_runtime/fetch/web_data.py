"""Data files on web servers: https://HOST/PATH of a single file, without credentials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tunesmith_runtime.fetch import https
from tunesmith_runtime.fetch.data import Data, DataSource
from tunesmith_runtime.fetch.hub_types import DATA_SET
from tunesmith_runtime.storage import Entry, name_of


def find_web_data(source: DataSource) -> Data:
    """Find a file on a web server. Its fingerprint holds the ETag; if the server sends none, the sha256 of the content.

    Raises RunFailure (DatasetNotFound, HubForbidden, HubRateLimited, HubUnreachable).
    """
    file = https.look_up(source.uri, DATA_SET)
    fingerprint = file.fingerprint or _sha256(file)
    size = 1 if file.size_bytes is None else file.size_bytes  # an unknown size does not count as empty
    entry = Entry(name_of(source.uri), size, file.etag)
    return Data(source.uri, {source.uri: entry}, fingerprint, source, origin=WebOrigin(file))


def _sha256(file: https.WebFile) -> str:
    with TemporaryDirectory() as folder:
        return https.download(file, Path(folder) / "data")


@dataclass(frozen=True)
class WebOrigin:
    """The server of a file."""

    file: https.WebFile

    def download(self, uri: str, path: Path, entry: Entry | None = None) -> None:
        """Download the file. Raises RunFailure."""
        https.download(self.file, path)
