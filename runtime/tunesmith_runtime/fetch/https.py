"""Files on web servers: https://HOST/PATH of a GGUF, safetensors or archive file of a model, or of a file of rows.

Only https is spoken, also after a redirect, and no credentials are sent. A download that breaks off is resumed at the byte
where it ended, as long as the server's ETag is the same.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.hub_errors import unreachable
from tunesmith_runtime.fetch.hub_types import MODEL, RateLimited, RepositoryKind, range_header, read_part, wait_out
from tunesmith_runtime.retry_after import retry_after
from tunesmith_runtime.storage import Entry, name_of
from tunesmith_runtime.storage.files import disk_failures
from tunesmith_runtime.storage.manifest import INCOMPLETE

log = logging.getLogger(__name__)

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
TRIES = 5
"""Consecutive attempts without a single byte."""
RETRY_SECONDS = 1.0
NO_HEAD = (403, 405, 501)
"""Answers of servers that allow GET only."""
PRIVATE = "make the file readable without credentials, or upload it to object storage and name its s3:// URI in {}"
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "tunesmith"}


@dataclass(frozen=True)
class WebFile:
    """A file on a web server as it is now."""

    uri: str
    etag: str
    """ETag, else Last-Modified; empty if the server sends neither."""
    size_bytes: int | None
    kind: RepositoryKind = MODEL

    @property
    def fingerprint(self) -> str:
        """Identity of the content, without a download; empty if the server does not identify versions."""
        return f"{self.etag}/{self.size_bytes}" if self.etag else ""


@dataclass(frozen=True)
class WebFiles:
    """Files of a folder on a web server, by name."""

    uri: str
    files: Mapping[str, WebFile]

    def list(self) -> list[Entry]:
        """Return the files."""
        return [Entry(name, file.size_bytes or 0, file.etag) for name, file in self.files.items()]

    def read_bytes(self, path: str) -> bytes | None:
        """Return the content of a small file; None if there is none."""
        file = self.files.get(path)
        return read_range(file, 0, file.size_bytes or 0) if file else None

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return up to `length` bytes of a file from the byte `start` on."""
        return read_range(self.files[path], start, length)

    def download(self, entry: Entry, target: Path) -> None:
        """Download a file to `target`."""
        download(self.files[entry.path], target)


def files_of(files: Sequence[WebFile]) -> WebFiles | None:
    """Return files of one folder; None if the server omits the size of one of them."""
    folder = files[0].uri.rpartition("/")[0]
    return (
        WebFiles(folder, {name_of(each.uri): each for each in files})
        if all(each.size_bytes for each in files)
        else None
    )


def look_up(uri: str, kind: RepositoryKind = MODEL) -> WebFile:
    """Return the file at a URI. Raises RunFailure (HubForbidden, HubRateLimited, HubUnreachable, or `kind.missing`)."""
    return wait_out(lambda: _look_up(uri, kind))


def download(file: WebFile, path: Path) -> str:
    """Download a file to `path` and return its sha256. Raises RunFailure as `look_up` does, HubCorrupt and DiskFull."""
    partial = path.with_name(path.name + INCOMPLETE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_failures(path):
        wait_out(lambda: _resume(file, partial))
        with partial.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        partial.replace(path)
    log.info("%s: %d bytes, sha256 %s", file.uri, path.stat().st_size, sha256)
    return sha256


def read_range(file: WebFile, start: int, length: int) -> bytes:
    """Return up to `length` bytes of a file from the byte `start` on. Raises RunFailure as `look_up` does."""
    return wait_out(lambda: _read_range(file, start, length))


def _read_range(file: WebFile, start: int, length: int) -> bytes:
    with (
        _failures(file.uri, file.kind),
        _client() as client,
        client.stream("GET", file.uri, headers=range_header(start, length)) as answer,
    ):
        _check_status(file.uri, file.kind, answer)
        return read_part(answer.iter_raw(), answer.status_code, start, length)


def _look_up(uri: str, kind: RepositoryKind) -> WebFile:
    with _failures(uri, kind), _client() as client:
        answer = client.head(uri)
        if answer.status_code in NO_HEAD:
            with client.stream("GET", uri) as answer:
                pass
        _check_status(uri, kind, answer)
    etag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    length = answer.headers.get("Content-Length", "")
    return WebFile(uri, etag, int(length) if length.isdigit() else None, kind)


def _resume(file: WebFile, partial: Path) -> None:
    """Download to `partial`, continuing after its last byte as often as the connection breaks."""
    partial.unlink(missing_ok=True)
    partial.touch()
    failures = 0
    with _client() as client:
        while True:
            before = partial.stat().st_size
            try:
                with _failures(file.uri, file.kind):
                    _receive(client, file, partial)
                return
            except RunFailure as failure:
                received = partial.stat().st_size - before
                failures = 1 if received > 0 else failures + 1
                if failure.failure is not FailureClass.HUB_UNREACHABLE or failures >= TRIES:
                    raise
                log.warning("%s; resuming at byte %d", failure.message, partial.stat().st_size)
                time.sleep(RETRY_SECONDS)


def _receive(client: httpx.Client, file: WebFile, partial: Path) -> None:
    offset = partial.stat().st_size
    if offset and offset == file.size_bytes:
        return  # the connection broke after the last byte
    wanted = {"Range": f"bytes={offset}-", "If-Range": file.etag} if offset and _is_strong(file.etag) else {}
    with client.stream("GET", file.uri, headers=wanted) as answer:
        if answer.status_code == 416 and answer.headers.get("Content-Range") == f"bytes */{offset}":
            return  # it broke after the last byte of a file whose size was not known
        _check_status(file.uri, file.kind, answer)
        etag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if etag != file.etag:
            raise RunFailure(FailureClass.HUB_CORRUPT, f"{file.uri} has changed since the download began")
        with partial.open("ab") as output:
            if answer.status_code != 206:
                output.truncate(0)
            for chunk in answer.iter_raw():  # with a size, it would hold bytes back that a broken connection then loses
                output.write(chunk)
    size = partial.stat().st_size
    if file.size_bytes not in (None, size):
        partial.write_bytes(b"")
        message = f"{file.uri}: received {size} bytes; the server has announced {file.size_bytes}"
        raise RunFailure(FailureClass.HUB_CORRUPT, message)


def _is_strong(etag: str) -> bool:
    """Whether equal tags mean equal bytes, so that a download can be resumed (RFC 9110, 13.1.5)."""
    return etag.startswith('"')


def _client() -> httpx.Client:
    return httpx.Client(
        follow_redirects=True,
        max_redirects=5,
        timeout=TIMEOUT,
        headers=HEADERS,
        event_hooks={"request": [_check_scheme]},
    )


class _NotHttps(Exception):
    """A redirect to an address without encryption."""


def _check_scheme(request: httpx.Request) -> None:
    if request.url.scheme != "https":
        raise _NotHttps(f"the server redirects to {request.url.scheme}://{request.url.host}, which is not encrypted")


@contextmanager
def _failures(uri: str, kind: RepositoryKind) -> Iterator[None]:
    try:
        yield
    except _NotHttps as error:
        raise RunFailure(FailureClass.HUB_FORBIDDEN, f"{uri}: {error}", "name the https:// URL of the file") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise unreachable(kind, uri, error) from error


def _check_status(uri: str, kind: RepositoryKind, answer: httpx.Response) -> None:
    status = answer.status_code
    message = f"{uri}: {status} {answer.reason_phrase}"
    if status in (200, 206):
        return
    if status in (401, 403):
        raise RunFailure(FailureClass.HUB_FORBIDDEN, message, PRIVATE.format(kind.field))
    if status in (404, 410):
        raise RunFailure(kind.missing, message, f"check the path of {name_of(uri)} in {kind.field}")
    if status == 429:
        raise RateLimited(message, retry_after(answer.headers.get("Retry-After", "")))
    raise RunFailure(FailureClass.HUB_UNREACHABLE, message)
