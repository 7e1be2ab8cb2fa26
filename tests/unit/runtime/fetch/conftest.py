"""A real S3 server and a folder, as the two stores that every promise is tried on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.s3 import s3, s3_server, store, tls_server
from tests.unit.runtime.fetch.hub_imports import folder_store, large, quick

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
