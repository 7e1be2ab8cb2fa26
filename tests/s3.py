"""A real S3 server for tests: versitygw over a folder, on 127.0.0.1. Use it as the fixture `s3`."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.servers import free_port
from tunesmith_api.run import Store

REGION = "us-east-1"
START_SECONDS = 30


def binary() -> Path:
    """The versitygw program, which devcluster builds if necessary."""
    cache = Path(os.environ.get("TUNESMITH_CACHE") or Path.home() / ".cache/tunesmith")
    program = cache / "bin" / "versitygw"
    if not program.is_file():
        subprocess.run([sys.executable, "-m", "devcluster", "tools", "versitygw"], check=True)
    return program


@dataclass(frozen=True)
class S3Server:
    """A running server, with its own keys."""

    endpoint: str
    access_key: str
    secret_key: str
    root: Path
    """Folder with a folder for each bucket, which holds the objects as files."""
    ca_bundle: Path | None = None

    @property
    def keys(self) -> tuple[str, str]:
        """Access key and secret key."""
        return self.access_key, self.secret_key

    @property
    def environment(self) -> dict[str, str]:
        """The variables that give a process its credentials."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def store(self, bucket: str, prefix: str = "store", **changes: Any) -> Store:
        """A store in `bucket` of this server."""
        fields = {"uri": f"s3://{bucket}/{prefix}", "endpoint": self.endpoint, "path_style": True}
        return Store(**{**fields, "ca_bundle": str(self.ca_bundle) if self.ca_bundle else None, **changes})

    def client(self) -> Any:
        """A boto3 client of this server."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            verify=str(self.ca_bundle) if self.ca_bundle else None,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def new_bucket(self) -> str:
        """An empty bucket with a name of its own."""
        name = f"test-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name


def _wait_for(process: subprocess.Popen[bytes], address: tuple[str, int], log: Path) -> None:
    for _ in range(START_SECONDS * 10):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(address) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"versitygw did not come up: {log.read_text()[-1000:]}")


def run_server(
    folder: Path, certificate: Path | None = None, key: Path | None = None, host: str = "127.0.0.1"
) -> Iterator[S3Server]:
    """Run a server over `folder` until the generator is closed, with TLS if a certificate and its key are given."""
    root, port, log = folder / "objects", free_port(), folder / "versitygw.log"
    root.mkdir(parents=True)
    access, secret = "TESTKEY" + secrets.token_hex(6).upper(), secrets.token_hex(16)
    command = [str(binary()), "--quiet", "--port", f"{host}:{port}", "--region", REGION]
    if certificate and key:
        command += ["--cert", str(certificate), "--key", str(key)]
    environment = {**os.environ, "ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret}
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "posix", str(root)], env=environment, stdout=output, stderr=output)
    try:
        _wait_for(process, (host, port), log)
        yield S3Server(f"http{'s' if certificate else ''}://{host}:{port}", access, secret, root, certificate)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server for all tests of the session."""
    yield from run_server(tmp_path_factory.mktemp("s3"))


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with its keys in the environment, as in a pod."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


def run_self_signed_server(folder: Path, host: str = "127.0.0.1") -> Iterator[S3Server]:
    """A server with a self-signed certificate."""
    certificate, key = folder / "server.crt", folder / "server.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={host}", "-addext", f"subjectAltName=IP:{host}"]
    subprocess.run([*command, "-out", str(certificate), "-keyout", str(key)], check=True, capture_output=True)
    yield from run_server(folder, certificate, key, host)


@pytest.fixture(scope="session")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The same for all tests of the session."""
    yield from run_self_signed_server(tmp_path_factory.mktemp("s3-tls"))


@pytest.fixture(params=["s3", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store, once in a bucket and once in a folder: a promise about storage holds for both."""
    if request.param == "file":
        return Store(uri=f"file://{tmp_path}/store")
    server: S3Server = request.getfixturevalue("s3")
    return server.store(server.new_bucket())
