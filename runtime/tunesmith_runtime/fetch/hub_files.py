"""The files of a repository of a hub at one revision, read singly or in parts, without a download of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Hub
from tunesmith_runtime import credentials
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.hub import choose, on_any_server, servers_of
from tunesmith_runtime.fetch.hub_types import (
    MODEL,
    HubFile,
    HubServer,
    Listing,
    RepositoryKind,
    digests_of,
    wait_out,
)
from tunesmith_runtime.storage import Entry
from tunesmith_runtime.storage.files import disk_failures


@dataclass(frozen=True)
class HubFiles:
    """The files of a listing, each from the first of some servers that has it. Failures are RunFailure of a class that begins with Hub,
    and DiskFull."""

    uri: str
    servers: Sequence[HubServer]
    listing: Listing
    kind: RepositoryKind = MODEL

    @cached_property
    def _files(self) -> Mapping[str, HubFile]:
        return {file.path: file for file in self.listing.files}

    def list(self) -> list[Entry]:
        """Return all files. A file whose size the hub does not list has one byte, so that it does not count as empty."""
        return [
            Entry(file.path, 1 if file.size_bytes is None else file.size_bytes, file.digest.hex if file.digest else "")
            for file in self.listing.files
        ]

    def read_bytes(self, path: str) -> bytes | None:
        """Return the content of a small file; None if the listing does not have it."""
        if path not in self._files:
            return None
        with TemporaryDirectory() as folder:
            target = Path(folder) / "file"
            self._bring(self._files[path], target)
            return target.read_bytes()

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return up to `length` bytes of a file from the byte `start` on. They are not compared with a digest."""
        file, revision = self._files[path], self.listing.revision
        return on_any_server(
            self.servers, lambda server: wait_out(lambda: server.read_range(file, revision, start, length))
        )

    def download(self, entry: Entry, target: Path) -> None:
        """Download a file to `target`, and compare it with the digest of the listing."""
        self._bring(self._files[entry.path], target)

    def _bring(self, file: HubFile, target: Path) -> None:
        with disk_failures(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=target.parent, prefix=".hub-") as folder:
                on_any_server(self.servers, lambda server: self._download(server, file, Path(folder)))
                (Path(folder) / file.path).replace(target)

    def _download(self, server: HubServer, file: HubFile, folder: Path) -> None:
        wait_out(lambda: server.download(file, self.listing.revision, folder))
        got = folder / file.path
        if file.digest is None or digests_of(got)[file.digest.kind] == file.digest.hex:
            return
        size = got.stat().st_size
        got.unlink()
        raise RunFailure(
            FailureClass.HUB_CORRUPT,
            f"{self.kind.noun} {self.uri}: {server.server}: {file.path}: the {size} bytes do not have the {file.digest.kind} digest "
            f"{file.digest.hex[:12]} that the hub lists",
        )


def find_model_files(uri: str, hub: Hub | None, trusted: bool, adapter: bool) -> HubFiles:
    """Return the files of a repository that are the model. Raises RunFailure as `find_files` and `hub.choose` do."""
    found = find_files(uri, hub)
    chosen = choose(uri, found.servers[0], found.listing, trusted, adapter)
    return replace(found, listing=replace(found.listing, files=tuple(chosen)))


def find_files(uri: str, hub: Hub | None, kind: RepositoryKind = MODEL) -> HubFiles:
    """Return the files of a repository at the present commit of its revision.

    Raises RunFailure (`RepositoryKind.missing`, or of a class that begins with Hub).
    """
    credentials.trim()
    credentials.check(credentials.HUBS, kind.missing)
    servers = servers_of(uri, hub, kind)
    listing, server = on_any_server(servers, lambda each: (wait_out(each.list_files), each))
    return HubFiles(uri, [server, *(each for each in servers if each is not server)], listing, kind)
