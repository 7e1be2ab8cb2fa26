"""A pod uses the credentials of its Secret or its ServiceAccount, never those of the node."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Store
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage.s3 import S3


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Paths requested from a cloud's metadata service, which gives the node's credentials to every client."""
    paths: list[str] = []

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"node-role")

        do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    yield paths
    server.shutdown()
    server.server_close()


def test_a_pod_without_credentials_does_not_take_the_nodes(asked: list[str]) -> None:
    with pytest.raises(RunFailure) as failure:
        S3(Store(uri="s3://bucket", endpoint="http://127.0.0.1:9")).stat("s3://bucket/key")
    assert failure.value.failure is FailureClass.STORAGE_403
    assert "no credentials" in str(failure.value)
    assert asked == []


def test_boto3_by_itself_would(asked: list[str]) -> None:
    boto3.session.Session().get_credentials()
    assert asked
