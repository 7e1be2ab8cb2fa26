"""A real S3 server and a folder, as the two stores that every promise is tried on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.s3 import s3, s3_server, store, tls_server
from tests.unit.runtime.fetch.hub_imports import folder_store, large, quick
from tests.unit.runtime.fetch.support import Fetcher
from tunesmith_api.run import Store

__all__ = ["folder_store", "large", "quick", "s3", "s3_server", "store", "tls_server"]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and localhost, with its key in the same file."""
    folder = tmp_path_factory.mktemp("web-tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(
        [*command, "-out", str(folder / "crt"), "-keyout", str(folder / "key")], check=True, capture_output=True
    )
    (folder / "server.pem").write_text((folder / "crt").read_text() + (folder / "key").read_text())
    return folder / "server.pem"


@pytest.fixture
def fetcher(store: Store, tmp_path: Path) -> Fetcher:
    """Pods that fetch from either store."""
    return Fetcher(store, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Fetcher:
    """Pods that fetch from local files, for tests that do not depend on the kind of store."""
    return Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)
