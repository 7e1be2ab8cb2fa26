"""Two hubs on 127.0.0.1 that answer what the clients of Hugging Face and ModelScope ask when they download a model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """A hub with models: org/name -> path -> content. `revisions` other than the branch do not exist."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], models: Mapping[str, Mapping[str, bytes]]) -> None:
        self.models, self.asked = models, list[str]()
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, content: bytes, headers: Mapping[str, str], head: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if not head:
            self.wfile.write(content)

    def json(self, status: int, value: Any, head: bool = False, **headers: str) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers}, head)

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.reply(urlsplit(self.path).path, head=False)

    def do_HEAD(self) -> None:
        self.reply(urlsplit(self.path).path, head=True)

    def reply(self, path: str, head: bool) -> None:
        raise NotImplementedError

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the tests' output clean."""


class HuggingFace(_Handler):
    """GET /api/models/ORG/NAME[/revision/REV], /api/models/ORG/NAME/tree/REV, /ORG/NAME/resolve/REV/PATH."""

    def reply(self, path: str, head: bool) -> None:
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
        else:
            name, rest = "/".join(parts[:2]), parts[2:]
        files = self.server.models.get(name)
        if files is None:
            return self.json(404, {"error": "Repository not found"}, head, **{"X-Error-Code": "RepoNotFound"})
        if len(rest) > 1 and rest[1] not in ("main", COMMIT):
            return self.json(404, {"error": f"Invalid rev id: {rest[1]}"}, head, **{"X-Error-Code": "RevisionNotFound"})
        if rest[:1] == ["resolve"]:
            content = files["/".join(rest[2:])]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            return self.answer(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}, head)
        if rest[:1] == ["tree"]:
            tree = [{"type": "file", "path": each, "size": len(content), "oid": "0"} for each, content in files.items()]
            return self.json(200, tree, head)
        siblings = [{"rfilename": each} for each in files]
        return self.json(200, {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}, head)


class ModelScope(_Handler):
    """GET /api/v1/models/ORG/NAME/repo/files?Revision=…, /api/v1/models/ORG/NAME/repo?Revision=…&FilePath=…"""

    def reply(self, path: str, head: bool) -> None:
        parts = path.strip("/").split("/")
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        files = self.server.models.get("/".join(parts[3:5]))
        if files is None or query.get("Revision", "master") != "master":
            return self.json(404, {"Code": 10010205001, "Success": False, "Message": "the model does not exist"}, head)
        if parts[5:] == ["repo"]:
            return self.answer(200, files[query["FilePath"]], {"Content-Type": "application/octet-stream"}, head)
        listed = [
            {
                "Path": each,
                "Name": each,
                "Size": len(content),
                "Sha256": hashlib.sha256(content).hexdigest(),
                "Type": "blob",
            }
            for each, content in files.items()
        ]
        return self.json(200, {"Code": 200, "Success": True, "Data": {"Files": listed}}, head)


@contextmanager
def hub(handler: type[_Handler], models: Mapping[str, Mapping[str, bytes]]) -> Iterator[Hub]:
    """A running hub."""
    server = Hub(handler, models)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
