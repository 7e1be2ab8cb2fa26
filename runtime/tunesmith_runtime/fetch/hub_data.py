"""Data sets of hubs: hf://org/name@revision and ms://org/name@revision (ModelScope), by the hubs' own clients.

Only files of rows and README.md are downloaded, at the commit that the revision names now. No code of a data set runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from tunesmith_api.failures import FailureClass
from tunesmith_api.hashing import digest
from tunesmith_api.run import Hub
from tunesmith_runtime import credentials
from tunesmith_runtime.data.files import type_of
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.data import Data, DataSource
from tunesmith_runtime.fetch.data_layout import CARD, CARD_BYTES, CONVERTED
from tunesmith_runtime.fetch.hub import on_any_server, parse, redirection, servers_of
from tunesmith_runtime.fetch.hub_types import DATA_SET, HubFile, HubServer, Listing, digests_of, wait_out
from tunesmith_runtime.storage import Entry
from tunesmith_runtime.storage.files import disk_failures

log = logging.getLogger(__name__)


def find_hub_data(source: DataSource, hub: Hub | None) -> Data:
    """Find the files of a data set at the present commit of its revision.

    Raises RunFailure (DatasetNotFound, or of a class that begins with Hub).
    """
    credentials.trim()
    credentials.check(credentials.HUBS, FailureClass.DATASET_NOT_FOUND)
    scheme, name, revision = parse(source.uri)
    servers = servers_of(source.uri, hub, DATA_SET)
    listing, server = on_any_server(servers, lambda each: (wait_out(each.list_files), each))
    log.info("%s is %s at %s", source.uri, listing.revision, server.server)
    origin = HubOrigin(source.uri, [server, *(each for each in servers if each is not server)], listing)
    card = origin.card()
    pinned = f"{scheme}://{name}@{listing.revision}"
    entries = {
        f"{pinned}/{file.path}": Entry(file.path, _size(file), file.digest.hex if file.digest else "")
        for file in listing.files
    }
    _refuse_programs(source.uri, name, listing)
    content = {file.path: file.digest.hex if file.digest else file.size_bytes for file in listing.files}
    identity = {"revision": listing.revision, "files": content, "server": redirection(source.uri, hub)}
    return Data(
        source.uri,
        entries,
        digest(identity),
        source,
        card=card,
        has_layout=True,
        is_converted=revision == CONVERTED,
        origin=origin,
    )


def _size(file: HubFile) -> int:
    """Its size; 1 if the hub does not list it, so that it does not count as empty."""
    return 1 if file.size_bytes is None else file.size_bytes


def _refuse_programs(uri: str, name: str, listing: Listing) -> None:
    """Raise RunFailure (DatasetNotFound) for a data set whose rows only a program of its own can make."""
    program = f"{name.split('/')[-1]}.py"
    paths = [file.path for file in listing.files]
    if program in paths and not any(type_of(path) for path in paths):
        hint = f"set uri to {uri.partition('@')[0]}@{CONVERTED}, where Hugging Face keeps Parquet copies of the rows"
        message = f"data set {uri}: its rows are made by the program {program}, which is never run"
        raise RunFailure(FailureClass.DATASET_NOT_FOUND, message, hint)


@dataclass(frozen=True)
class HubOrigin:
    """Where the files of a listing are downloaded from: the first of some servers that has them."""

    uri: str
    servers: Sequence[HubServer]
    listing: Listing

    @cached_property
    def _files(self) -> Mapping[str, HubFile]:
        return {file.path: file for file in self.listing.files}

    def card(self) -> str | None:
        """The text of README.md; None if there is none."""
        file = self._files.get(CARD)
        if file is None or _size(file) > CARD_BYTES:
            return None
        with TemporaryDirectory() as folder:
            path = Path(folder) / CARD
            self._bring(file, path)
            return path.read_text(encoding="utf-8", errors="replace")

    def download(self, uri: str, path: Path, entry: Entry | None = None) -> None:
        """Download a file of the listing. Raises RunFailure of a class that begins with Hub, and DiskFull."""
        assert entry is not None, "a file of a hub is known by its entry"
        self._bring(self._files[entry.path], path)

    def _bring(self, file: HubFile, path: Path) -> None:
        with disk_failures(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=path.parent, prefix=".hub-") as folder:
                on_any_server(self.servers, lambda server: self._download(server, file, Path(folder)))
                (Path(folder) / file.path).replace(path)

    def _download(self, server: HubServer, file: HubFile, folder: Path) -> None:
        """Download a file and compare it with the digest of the listing."""
        wait_out(lambda: server.download(file, self.listing.revision, folder))
        got = folder / file.path
        if file.digest is None or digests_of(got)[file.digest.kind] == file.digest.hex:
            return
        size = got.stat().st_size
        got.unlink()
        raise RunFailure(
            FailureClass.HUB_CORRUPT,
            f"data set {self.uri}: {server.server}: {file.path}: the {size} bytes do not have the {file.digest.kind} digest "
            f"{file.digest.hex[:12]} that the hub lists",
        )
