"""A hub on 127.0.0.1 that speaks the HTTP of Hugging Face and of ModelScope, for tests with the hubs' own clients.

Files of weights are served by a second server under another host name, to which the hub redirects, as both hubs do with their
CDN. Faults are added while it runs. The bytes that were sent are counted for each file.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

BLOCK_BYTES = 16 << 10
WEIGHTS = (".safetensors", ".gguf", ".bin", ".parquet")
"""Files that a hub keeps outside git: listed with their sha256, and served by the CDN."""


CONVERTED = "refs/convert/parquet"
"""Revision with the hub's own copies of a data set."""


def git_digest(content: bytes) -> str:
    """The sha1 of a git blob with that content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """The files of a repository, by path. Its commit follows from them."""

    files: dict[str, bytes]
    needs_token: str | None = None
    """Token without which it is gated."""
    has_digests: bool = True
    """Whether the listing has the digests of the files."""

    @property
    def commit(self) -> str:
        """The commit of the only branch."""
        listed = json.dumps({path: git_digest(content) for path, content in sorted(self.files.items())})
        return hashlib.sha1(listed.encode()).hexdigest()


@dataclass
class Fault:
    """What happens to requests whose path matches, `times` times."""

    path: str
    """Regular expression that is searched in the path and query of the request."""
    times: int = 1_000_000
    method: str = "GET|HEAD"
    status: int | None = None
    """Answer with this status."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of the answer, added to the usual headers or replacing them."""
    body: bytes = b"{}"
    """Body of an answer with `status`."""
    cut_after: int | None = None
    """Close the connection after that many bytes of the body."""
    content: bytes | None = None
    """Send this in place of the file."""
    block_seconds: float = 0.0
    """Pause after each block of the body."""
    is_unfinished: bool = False
    """Send the body in chunks, without its length, and close the connection before the empty chunk that ends it."""

    def matches(self, method: str, path: str) -> bool:
        """Whether it concerns a request."""
        return (
            self.times > 0 and re.fullmatch(self.method, method) is not None and re.search(self.path, path) is not None
        )


@dataclass
class Hub:
    """A running hub: its repositories by ORG/NAME, data sets by datasets/ORG/NAME, its faults, and what it was asked for."""

    repositories: dict[str, Repository]
    url: str = ""
    cdn_url: str = ""
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Method and path of each request."""
    headers: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of each request, the names in lower case."""
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes of the content of each file that were sent."""
    ignores_ranges: bool = False
    """Whether a whole file is sent in place of a range."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, method: str, path: str) -> Fault | None:
        """Return the first fault that concerns a request, and use it up once."""
        with self.lock:
            for fault in self.faults:
                if fault.matches(method, path):
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def do_GET(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self.reply()

    def do_HEAD(self) -> None:
        self.do_GET()

    def reply(self) -> None:
        """Answer one request."""
        self.hub.asked.append(f"{self.command} {self.path}")
        self.hub.headers.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        fault = self.hub.fault(self.command, self.path)
        if fault and fault.status:
            return self.send(fault.status, fault.body, {"Content-Type": "application/json", **fault.headers})
        self.route(urlsplit(self.path).path, fault or Fault(""))

    def route(self, path: str, fault: Fault) -> None:
        """Answer with a listing, a file or a redirect."""
        parts = path.strip("/").split("/")
        if parts[:2] == ["cdn", "files"]:
            length = 3 if parts[2] == "datasets" else 2
            name, file = "/".join(parts[2 : 2 + length]), "/".join(parts[2 + length :])
            return self.send_file(file, self.hub.repositories[name].files[file], {}, fault)
        if parts[:1] == ["web"]:
            return self.web("/".join(parts[1:]), fault)
        if parts[:3] == ["api", "v1", "models"]:
            return self.model_scope("/".join(parts[3:5]), parts[5:], fault)
        if parts[:2] == ["api", "models"]:
            return self.hugging_face("/".join(parts[2:4]), parts[4:], fault)
        if parts[:3] == ["api", "v1", "datasets"]:
            return self.model_scope("/".join(parts[2:5]), parts[5:], fault)
        if parts[:2] == ["api", "datasets"]:
            return self.hugging_face("/".join(parts[1:4]), parts[4:], fault)
        if parts[:1] == ["datasets"]:
            return self.hugging_face("/".join(parts[:3]), parts[3:], fault)
        return self.hugging_face("/".join(parts[:2]), parts[2:], fault)

    def web(self, path: str, fault: Fault) -> None:
        """GET /web/PATH: a file of the repository web/files, as a plain web server has it."""
        content = self.hub.repositories["web/files"].files.get(path)
        if content is None:
            return self.send(404, b"<html>", {"Content-Type": "text/html"})
        tag = {"ETag": f'"{git_digest(content)}"', "Last-Modified": "Sun, 29 Nov 2026 05:00:00 GMT"}
        self.send_file(path, content, tag, fault)

    def hugging_face(self, name: str, rest: list[str], fault: Fault) -> None:
        """GET /api/models/ORG/NAME[/revision/REV][?blobs=true], /ORG/NAME/resolve/REV/PATH; likewise datasets."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self.json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if repository.needs_token and self.headers.get("Authorization") != f"Bearer {repository.needs_token}":
            return self.json(403, {"error": "Access to this model is restricted"}, {"X-Error-Code": "GatedRepo"})
        if len(rest) > 1 and unquote(rest[1]) not in ("main", CONVERTED, repository.commit):
            return self.json(404, {"error": f"Invalid rev id: {rest[1]}"}, {"X-Error-Code": "RevisionNotFound"})
        if rest[:1] != ["resolve"]:
            siblings = [_sibling(repository, path) for path in repository.files]
            return self.json(200, {"id": name, "sha": repository.commit, "siblings": siblings} | fault.headers)
        path = "/".join(rest[2:])
        content = repository.files.get(path)
        if content is None:
            return self.json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": repository.commit, **fault.headers}
        if not path.endswith(WEIGHTS):
            return self.send_file(path, content, {"ETag": f'"{git_digest(content)}"', **headers}, fault)
        linked = {"X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        self.send(302, b"", {"Location": f"{self.hub.cdn_url}/cdn/files/{name}/{quote(path)}", **linked, **headers})

    def model_scope(self, name: str, rest: list[str], fault: Fault) -> None:
        """GET /api/v1/models/ORG/NAME/repo/files?Revision=…, /api/v1/models/ORG/NAME/repo?Revision=…&FilePath=…; datasets."""
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        repository = self.hub.repositories.get(name)
        if repository is None or query.get("Revision", "master") != "master":
            return self.json(404, {"Code": 10010205001, "Success": False, "Message": "the model does not exist"})
        if repository.needs_token and self.headers.get("Authorization") != f"Bearer {repository.needs_token}":
            return self.json(403, {"Code": 10010205403, "Success": False, "Message": "no permission"})
        if rest != ["repo"]:
            listed = [_listed(repository, path) for path in repository.files]
            return self.json(200, {"Code": 200, "Success": True, "Data": {"Files": listed}})
        path = query["FilePath"]
        content = repository.files.get(path)
        if content is None:
            return self.json(404, {"Code": 10010205002, "Success": False, "Message": "the file does not exist"})
        if not path.endswith(WEIGHTS):
            return self.send_file(path, content, {}, fault)
        self.send(302, b"", {"Location": f"{self.hub.cdn_url}/cdn/files/{name}/{quote(path)}"})

    def send_file(self, path: str, content: bytes, headers: Mapping[str, str], fault: Fault) -> None:
        """Send a file, or the range of it that is asked for."""
        content = content if fault.content is None else fault.content
        asked = "" if self.hub.ignores_ranges else self.headers.get("Range", "")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        status, first, last = 200, 0, len(content)
        more = {"Accept-Ranges": "bytes", **headers, **fault.headers}
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1) + 1, len(content))
            if first >= len(content):
                return self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            status, more = 206, {**more, "Content-Range": f"bytes {first}-{last - 1}/{len(content)}"}
        self.send(status, content[first:last], more, fault, path)

    def json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send a JSON value."""
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def send(
        self, status: int, body: bytes, headers: Mapping[str, str], fault: Fault | None = None, counts_for: str = ""
    ) -> None:
        """Send an answer in blocks; count the body for a file."""
        is_unfinished = fault is not None and fault.is_unfinished
        framing = {"Transfer-Encoding": "chunked"} if is_unfinished else {"Content-Length": str(len(body))}
        self.send_response(status)
        for name, value in {**framing, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(body) if fault is None or fault.cut_after is None else min(fault.cut_after, len(body))
        for start in range(0, end, BLOCK_BYTES):
            block = body[start : min(start + BLOCK_BYTES, end)]
            if counts_for:  # before the client has the block, and looks at the count
                with self.hub.lock:
                    self.hub.sent[counts_for] += len(block)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if is_unfinished else block)
            if fault is not None and fault.block_seconds:
                time.sleep(fault.block_seconds)
        if end < len(body) or is_unfinished:
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the tests' output clean."""


def _sibling(repository: Repository, path: str) -> dict[str, Any]:
    content = repository.files[path]
    if not repository.has_digests:
        return {"rfilename": path}
    large = {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}}
    entry = {"rfilename": path, "size": len(content), "blobId": git_digest(content)}
    return entry | (large if path.endswith(WEIGHTS) else {})


def _listed(repository: Repository, path: str) -> dict[str, Any]:
    content = repository.files[path]
    entry: dict[str, Any] = {"Path": path, "Name": path, "Size": len(content), "Type": "blob"}
    return entry | ({"Sha256": hashlib.sha256(content).hexdigest()} if repository.has_digests else {})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed break their connections; keep the tests' output clean."""


@contextmanager
def hub(repositories: Mapping[str, Mapping[str, bytes] | Repository], certificate: Path | None = None) -> Iterator[Hub]:
    """A running hub with those repositories, by ORG/NAME. `certificate`: PEM file with the certificate and its key, for TLS."""
    filled = {
        name: each if isinstance(each, Repository) else Repository(dict(each)) for name, each in repositories.items()
    }
    running = Hub(filled)
    servers = [_Server(running), _Server(running)]
    threads = [
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True) for server in servers
    ]
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        for server in servers:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    scheme = "https" if certificate else "http"
    running.url = f"{scheme}://127.0.0.1:{servers[0].server_port}"
    running.cdn_url = f"{scheme}://localhost:{servers[1].server_port}"
    for thread in threads:
        thread.start()
    try:
        yield running
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()
