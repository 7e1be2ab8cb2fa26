"""Data sets of hubs: hf://org/name@revision and ms://org/name@revision (ModelScope), by the hubs' own clients.

Only files of rows and README.md are downloaded, at the commit that the revision names now. No code of a data set runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_api.hashing import digest
from tunesmith_api.run import Hub
from tunesmith_runtime.data.files import type_of
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.data import Data, DataSource
from tunesmith_runtime.fetch.data_layout import CARD, CARD_BYTES, CONVERTED
from tunesmith_runtime.fetch.hub import parse, redirection
from tunesmith_runtime.fetch.hub_files import HubFiles, find_files
from tunesmith_runtime.fetch.hub_types import DATA_SET, Listing
from tunesmith_runtime.storage import Entry

log = logging.getLogger(__name__)


def find_hub_data(source: DataSource, hub: Hub | None) -> Data:
    """Find the files of a data set at the present commit of its revision.

    Raises RunFailure (DatasetNotFound, or of a class that begins with Hub).
    """
    files = find_files(source.uri, hub, DATA_SET)
    log.info("%s is %s at %s", source.uri, files.listing.revision, files.servers[0].server)
    return data_in(files, source, redirection(source.uri, hub))


def data_in(files: HubFiles, source: DataSource, server: Mapping[str, str] | None = None) -> Data:
    """Return the data of a source in the files of its repository. `server`: as of `hub.redirection`. Raises RunFailure (DatasetNotFound)."""
    scheme, name, revision = parse(source.uri)
    listing = files.listing
    pinned = f"{scheme}://{name}@{listing.revision}"
    _refuse_programs(source.uri, name, listing)
    content = {file.path: file.digest.hex if file.digest else file.size_bytes for file in listing.files}
    identity = {"revision": listing.revision, "files": content, "server": dict(server or {})}
    return Data(
        source.uri,
        {f"{pinned}/{entry.path}": entry for entry in files.list()},
        digest(identity),
        source,
        card=_card(files),
        has_layout=True,
        is_converted=revision == CONVERTED,
        origin=HubOrigin(files),
    )


def _card(files: HubFiles) -> str | None:
    """The text of README.md; None if there is none, or one that is too long."""
    entry = next((each for each in files.list() if each.path == CARD), None)
    if entry is None or entry.size_bytes > CARD_BYTES:
        return None
    return (files.read_bytes(CARD) or b"").decode("utf-8", "replace")


def _refuse_programs(uri: str, name: str, listing: Listing) -> None:
    """Raise RunFailure (DatasetNotFound) for a data set that needs its own program to make the rows."""
    program = f"{name.split('/')[-1]}.py"
    paths = [file.path for file in listing.files]
    if program in paths and not any(type_of(path) for path in paths):
        hint = f"set uri to {uri.partition('@')[0]}@{CONVERTED}, where Hugging Face keeps Parquet copies of the rows"
        message = f"data set {uri}: its rows are made by the program {program}, which is never run"
        raise RunFailure(FailureClass.DATASET_NOT_FOUND, message, hint)


@dataclass(frozen=True)
class HubOrigin:
    """Where the files of a data set are read from."""

    files: HubFiles

    def download(self, uri: str, path: Path, entry: Entry | None = None) -> None:
        """Download a file of the listing. Raises RunFailure of a class that begins with Hub, and DiskFull."""
        assert entry is not None, "a file of a hub is known by its entry"
        self.files.download(entry, path)

    def read_range(self, uri: str, entry: Entry, start: int, length: int) -> bytes:
        """Return up to `length` bytes of a file of the listing from the byte `start` on. Raises RunFailure as `download`."""
        return self.files.read_range(entry.path, start, length)
