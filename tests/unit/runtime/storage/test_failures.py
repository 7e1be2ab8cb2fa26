"""Each failure of storage has its class, the URI and a hint."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import traceback
from pathlib import Path

import pytest

from tests.s3 import S3Server
from tests.servers import free_port
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Store
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.storage import Entry, join, open_storage
from tunesmith_runtime.storage.files import disk_failures


def test_a_wrong_secret_key_is_named(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = s3.store(s3.new_bucket())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret-key")
    with pytest.raises(RunFailure) as failure:
        open_storage(store).list(store.uri)
    assert failure.value.failure is FailureClass.STORAGE_403
    assert store.uri in failure.value.message
    assert "AWS_SECRET_ACCESS_KEY" in str(failure.value.hint)
    assert "not-the-secret-key" not in str(failure.value)


def test_a_wrong_access_key_is_named(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = s3.store(s3.new_bucket())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    with pytest.raises(RunFailure) as failure:
        open_storage(store).read_bytes(join(store.uri, "x"))
    assert failure.value.failure is FailureClass.STORAGE_403
    assert "AWS_ACCESS_KEY_ID" in str(failure.value.hint)


@pytest.mark.parametrize("around", ["{}\n", "\n{}", " {} ", "{}\r\n", "\ufeff{}"])
def test_white_space_around_the_access_keys_is_ignored(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, around: str
) -> None:
    store = s3.store(s3.new_bucket())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, around.format(os.environ[name]))
    open_storage(store).write_bytes(join(store.uri, "x"), b"1")
    assert open_storage(store).read_bytes(join(store.uri, "x")) == b"1"


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_white_space_within_a_key_is_named_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "AKIAIOSF\nODNN7EXAMPLE")
    with pytest.raises(RunFailure, match=f"{name} has white space within it, at character 9") as failure:
        open_storage(Store(uri="s3://b", endpoint="http://127.0.0.1:9")).list("s3://b/x")
    assert failure.value.failure is FailureClass.STORAGE_403
    assert "AKIA" not in str(failure.value)


def test_a_header_that_cannot_be_sent_is_a_credential_failure_without_its_text(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith_runtime.credentials.check", lambda *_: None)
    store = s3.store(s3.new_bucket())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"{os.environ['AWS_ACCESS_KEY_ID']}\nX")
    with pytest.raises(RunFailure, match="a character that no HTTP header can carry") as failure:
        open_storage(store).list(store.uri)
    assert failure.value.failure is FailureClass.STORAGE_403
    assert "Signature" not in "".join(traceback.format_exception(failure.value))


def test_white_space_around_endpoint_and_region_is_ignored(s3: S3Server) -> None:
    store = s3.store(s3.new_bucket())
    spaced = store.model_copy(update={"endpoint": f" {store.endpoint}\n", "region": f"{store.region}\n"})
    assert open_storage(spaced).list(store.uri) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("endpoint", "127.0.0.1:9"),
        ("endpoint", "http://a host:9"),
        ("endpoint", "http://127.0.0.1:port"),
        ("region", "us east"),
    ],
)
def test_an_invalid_endpoint_or_region_is_a_bad_spec(field: str, value: str) -> None:
    store = Store(uri="s3://b", endpoint="http://127.0.0.1:9").model_copy(update={field: value})
    with pytest.raises(RunFailure, match=value) as failure:
        open_storage(store).list("s3://b/x")
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert f"storage.{field}" in str(failure.value.hint)


def test_missing_credentials_are_reported_with_the_field_of_the_secret(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RunFailure) as failure:
        open_storage(s3.store("any")).list("s3://any/x")
    assert failure.value.failure is FailureClass.STORAGE_403
    assert "storage.credentialsSecret" in str(failure.value.hint)


def test_a_missing_bucket_is_named(s3: S3Server, tmp_path: Path) -> None:
    storage = open_storage(s3.store("no-such-bucket"))
    source = tmp_path / "f"
    source.write_bytes(b"1")
    for call in (
        lambda: storage.list("s3://no-such-bucket/x"),
        lambda: storage.read_bytes("s3://no-such-bucket/x"),
        lambda: storage.write_bytes("s3://no-such-bucket/x", b"1"),
        lambda: storage.upload(source, "s3://no-such-bucket/x"),
    ):
        with pytest.raises(NotFound, match="no bucket 'no-such-bucket'"):
            call()


def test_a_dead_endpoint_is_unreachable_and_named(s3: S3Server) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RunFailure, match=endpoint) as failure:
        open_storage(s3.store("b", endpoint=endpoint)).list("s3://b/x")
    assert failure.value.failure is FailureClass.STORAGE_UNREACHABLE


def test_an_untrusted_certificate_is_reported_with_the_field_of_the_ca_bundle(
    tls_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in tls_server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = tls_server.new_bucket()
    trusted = tls_server.store(bucket)
    open_storage(trusted).write_bytes(join(trusted.uri, "x"), b"1")
    assert open_storage(trusted).read_bytes(join(trusted.uri, "x")) == b"1"
    with pytest.raises(RunFailure, match="not trusted") as failure:
        open_storage(tls_server.store(bucket, ca_bundle=None)).read_bytes(join(trusted.uri, "x"))
    assert failure.value.failure is FailureClass.STORAGE_TLS


def test_a_ca_bundle_that_is_not_mounted_is_named(s3: S3Server) -> None:
    with pytest.raises(RunFailure, match=r"/no/ca\.crt") as failure:
        open_storage(s3.store("b", ca_bundle="/no/ca.crt")).list("s3://b/x")
    assert failure.value.failure is FailureClass.STORAGE_TLS


def test_an_endpoint_that_never_answers_is_unreachable(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tunesmith_runtime.storage.s3.METADATA", {"read_timeout": 0.2, "retries": {"total_max_attempts": 2}}
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RunFailure, match=endpoint) as failure:
            open_storage(s3.store("b", endpoint=endpoint)).list("s3://b/x")
    assert failure.value.failure is FailureClass.STORAGE_UNREACHABLE


def test_a_response_that_keeps_breaking_off_is_unreachable(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that promises 100 bytes of an object and sends 10: what it sent is not taken for the object."""
    monkeypatch.setattr("tunesmith_runtime.storage.s3.reader.TRIES", 2)
    listener = socket.create_server(("127.0.0.1", 0))
    tries = []

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                tries.append(connection.recv(65536))
                head = b'HTTP/1.1 206 Partial Content\r\nContent-Length: 100\r\nETag: "e"\r\nContent-Range: bytes 0-99/100\r\n\r\n'
                connection.sendall(head + b"x" * 10)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    storage = open_storage(s3.store("b", endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}"))
    with pytest.raises(RunFailure) as failure:
        storage.download("s3://b/f", tmp_path / "f", Entry("f", 100, '"e"'))
    listener.close()
    assert failure.value.failure is FailureClass.STORAGE_UNREACHABLE
    assert len(tries) == 2
    assert not (tmp_path / "f").exists()


def test_a_response_that_breaks_off_is_continued_at_the_byte_where_it_broke(s3: S3Server, tmp_path: Path) -> None:
    listener, content, ranges = socket.create_server(("127.0.0.1", 0)), bytes(range(100)), list[str]()

    def answer() -> None:
        for sent in (60, 100):
            connection, _ = listener.accept()
            with connection:
                request = connection.recv(65536).decode()
                ranges.append(request.lower().partition("range: bytes=")[2].partition("\r\n")[0])
                first = int(ranges[-1].split("-")[0] or 0)
                head = f'HTTP/1.1 206 Partial Content\r\nContent-Length: {100 - first}\r\nETag: "e"\r\n\r\n'
                connection.sendall(head.encode() + content[first:sent])

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    storage = open_storage(s3.store("b", endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}"))
    digest = storage.download("s3://b/f", tmp_path / "f", Entry("f", 100, '"e"'))
    thread.join(30)
    listener.close()
    assert ranges == ["", "60-99"]
    assert (tmp_path / "f").read_bytes() == content
    assert digest == hashlib.sha256(content).hexdigest()


def test_a_read_only_folder_is_named() -> None:
    with pytest.raises(RunFailure, match="/proc/1/x") as failure:
        open_storage(Store(uri="file:///proc")).write_bytes("file:///proc/1/x/y", b"")
    assert failure.value.failure in (FailureClass.STORAGE_403, FailureClass.BAD_SPEC)


def test_a_full_disk_is_disk_full() -> None:
    with pytest.raises(RunFailure) as failure, disk_failures("/dev/full"):
        Path("/dev/full").write_bytes(b"x")
    assert failure.value.failure is FailureClass.DISK_FULL
