"""A store with missing features: a proxy to the real S3 server that answers some requests itself."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.s3 import S3Server


@dataclass(frozen=True)
class Request:
    """A request to the proxy."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def condition(self) -> str | None:
        """The condition of a PUT: if-none-match or if-match."""
        found = {"if-none-match", "if-match"} & set(self.headers)
        return min(found) if self.method == "PUT" and found else None


@dataclass(frozen=True)
class Answer:
    """An answer of the proxy in place of the server."""

    status: int
    code: str = ""

    @property
    def body(self) -> bytes:
        """The answer as S3 writes it."""
        text = f"<Error><Code>{self.code}</Code><Message>as the test wants it</Message></Error>"
        return text.encode() if self.code else b""


Rule = Callable[[Request], Answer | str | None]
"""None forwards the request, "ignored" forwards it without its condition."""


@dataclass
class Proxy:
    """A running proxy and the requests that it received."""

    endpoint: str
    requests: list[Request] = field(default_factory=list)


@contextmanager
def limited(server: S3Server, rule: Rule, host: str = "127.0.0.1") -> Iterator[Proxy]:
    """Run a proxy to `server` that answers by `rule`, on an address of this machine."""
    client = server.client()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
            proxy.requests.append(request)
            answer = rule(request)
            if isinstance(answer, Answer):
                self._send(answer.status, {}, answer.body)
            elif answer == "ignored":  # the condition is signed, so the proxy writes the object itself
                _, bucket, key = unquote(urlsplit(self.path).path).split("/", 2)
                tag = client.put_object(Bucket=bucket, Key=key, Body=body)["ETag"]
                self._send(200, {"ETag": tag}, b"")
            else:
                self._send(*forwarded(server, request, body))

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer((host, 0), Handler)
    proxy = Proxy(f"http://{host}:{running.server_port}")
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def forwarded(server: S3Server, request: Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Forward a request with its signed Host header, and return the server's answer."""
    connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc, timeout=30)
    connection.request(request.method, request.target, body=body, headers=request.headers)
    response = connection.getresponse()
    content = response.read()
    hop = {"transfer-encoding", "connection"} | ({"content-length"} if request.method != "HEAD" else set())
    headers = {name: value for name, value in response.getheaders() if name.lower() not in hop}
    connection.close()
    return response.status, headers, content
