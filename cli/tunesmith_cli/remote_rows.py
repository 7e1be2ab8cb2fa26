"""Rows on hubs and web servers, read by urllib: the command line has none of the hubs' clients."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tunesmith_api.failures import FailureClass
from tunesmith_cli import hubfiles
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.data import Data, DataSource, find_data
from tunesmith_runtime.fetch.hub import parse
from tunesmith_runtime.fetch.hub_data import data_in
from tunesmith_runtime.fetch.hub_files import HubFiles
from tunesmith_runtime.fetch.hub_types import DATA_SET, Digest, HubFile, Listing, range_header, read_part
from tunesmith_runtime.storage import Entry, Storage, name_of

PAGE = 200
"""Files that ModelScope lists at a time."""
BLOCK_BYTES = 64 << 10
CLASSES: Mapping[int | None, FailureClass] = {
    HTTPStatus.NOT_FOUND: FailureClass.DATASET_NOT_FOUND,
    HTTPStatus.GONE: FailureClass.DATASET_NOT_FOUND,
    HTTPStatus.UNAUTHORIZED: FailureClass.HUB_FORBIDDEN,
    HTTPStatus.FORBIDDEN: FailureClass.HUB_FORBIDDEN,
    HTTPStatus.TOO_MANY_REQUESTS: FailureClass.HUB_RATE_LIMITED,
}
"""Status of an answer -> class of the failure; HubUnreachable for all others."""


def find_rows(storage: Storage, source: DataSource) -> Data:
    """Find the rows of a data set. Raises RunFailure."""
    scheme = source.uri.partition("://")[0]
    if scheme in hubfiles.HUBS:
        server = Server(source.uri)
        return data_in(HubFiles(source.uri, [server], server.list_files(), DATA_SET), source)
    if scheme == "https":
        return _web_data(source)
    return find_data(storage, [source])[source]


@contextmanager
def _failures(uri: str, url: str, hub: hubfiles.Hub | None = None) -> Iterator[None]:
    """Raise whatever prevents that `url` is read as RunFailure."""
    try:
        yield
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        failure = CLASSES.get(getattr(error, "code", None), FailureClass.HUB_UNREACHABLE)
        raise RunFailure(failure, f"data set {uri}: {url}: {hubfiles.cause_of(error, hub)}") from error


def _read_range(url: str, start: int, length: int, token: str | None = None) -> bytes:
    with hubfiles.open_url(url, token, range_header(start, length)) as answer:
        return read_part(iter(lambda: answer.read(BLOCK_BYTES), b""), answer.status, start, length)


class Server:
    """The server of the hub of a data set; see `hub_types.HubServer`."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._scheme, self._name, revision = parse(uri)
        self._hub = hubfiles.HUBS[self._scheme]
        self._revision = revision or self._hub.revision
        self._token = os.environ.get(self._hub.token_variable)
        self.server = hubfiles.endpoint_of(self._hub)

    def list_files(self) -> Listing:
        return self._hugging_face() if self._scheme == "hf" else self._model_scope()

    def download(self, file: HubFile, revision: str, directory: Path) -> None:
        url = self._url(file, revision)
        with _failures(self._uri, url, self._hub):
            hubfiles.save(url, directory / file.path, self._token)

    def read_range(self, file: HubFile, revision: str, start: int, length: int) -> bytes:
        url = self._url(file, revision)
        with _failures(self._uri, url, self._hub):
            return _read_range(url, start, length, self._token)

    def _url(self, file: HubFile, revision: str) -> str:
        path, revision = quote(file.path), quote(revision, safe="")
        if self._scheme == "hf":
            return f"{self.server}/datasets/{self._name}/resolve/{revision}/{path}"
        return f"{self.server}/api/v1/datasets/{self._name}/repo?Revision={revision}&FilePath={path}"

    def _hugging_face(self) -> Listing:
        url = f"{self.server}/api/datasets/{self._name}/revision/{quote(self._revision, safe='')}?blobs=true"
        with _failures(self._uri, url, self._hub):
            found = self._json(url)
            return Listing(found["sha"], tuple(map(_file_of_hugging_face, found["siblings"])))

    def _model_scope(self) -> Listing:
        place = f"{self.server}/api/v1/datasets/{self._name}/repo/tree"
        files, page = list[HubFile](), 0
        while True:
            page += 1
            url = f"{place}?Revision={quote(self._revision, safe='')}&Recursive=True&PageNumber={page}&PageSize={PAGE}"
            with _failures(self._uri, url, self._hub):
                listed = self._json(url)["Data"]["Files"]
                files += [_file_of_model_scope(each) for each in listed if each["Type"] != "tree"]
            if len(listed) < PAGE:
                return Listing(self._revision, tuple(files))

    def _json(self, url: str) -> Any:
        with hubfiles.open_url(url, self._token) as answer:
            return json.load(answer)


def _file_of_hugging_face(listed: Mapping[str, Any]) -> HubFile:
    lfs = listed.get("lfs")
    if lfs:
        return HubFile(listed["rfilename"], lfs["size"], Digest("sha256", lfs["sha256"]))
    blob = listed.get("blobId")
    return HubFile(listed["rfilename"], listed.get("size"), Digest("git", blob) if blob else None)


def _file_of_model_scope(listed: Mapping[str, Any]) -> HubFile:
    sha256 = listed.get("Sha256")
    return HubFile(listed["Path"], listed.get("Size"), Digest("sha256", sha256.lower()) if sha256 else None)


def _web_data(source: DataSource) -> Data:
    """Find a file on a web server."""
    uri = source.uri
    with _failures(uri, uri), hubfiles.open_url(uri) as answer:  # closed before its body is read
        length = answer.headers["Content-Length"] or ""
    entry = Entry(name_of(uri), int(length) if length.isdigit() else 1, "")
    return Data(uri, {uri: entry}, "", source, origin=WebOrigin())


@dataclass(frozen=True)
class WebOrigin:
    """The web server of a file; see `fetch.data.Origin`."""

    def download(self, uri: str, path: Path, entry: Entry | None = None) -> None:
        with _failures(uri, uri):
            hubfiles.save(uri, path)

    def read_range(self, uri: str, entry: Entry, start: int, length: int) -> bytes:
        with _failures(uri, uri):
            return _read_range(uri, start, length)
