"""Files of models on web servers, over TLS from a server on 127.0.0.1."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import Fault, Hub, hub
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch import https
from tunesmith_runtime.fetch.https import WebFile, download, look_up

CONTENT = bytes(range(256)) * 1000
FILES = {"a/model.gguf": CONTENT}


@pytest.fixture
def web(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A web server whose certificate is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(https, "RETRY_SECONDS", 0.01)
    with hub({"web/files": FILES}, certificate) as server:
        yield server


def failure_of(uri: str, path: Path) -> RunFailure:
    """The failure with which a download ends."""
    with pytest.raises(RunFailure) as caught:
        download(look_up(uri), path)
    assert not path.exists()
    return caught.value


def test_a_file_is_downloaded_with_its_digest(web: Hub, tmp_path: Path) -> None:
    file = look_up(f"{web.url}/web/a/model.gguf")
    assert file.size_bytes == len(CONTENT)
    assert download(file, tmp_path / "model.gguf") == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT


def test_another_content_has_another_fingerprint(web: Hub) -> None:
    uri = f"{web.url}/web/a/model.gguf"
    before = look_up(uri).fingerprint
    assert before == look_up(uri).fingerprint != ""
    web.repositories["web/files"].files["a/model.gguf"] = CONTENT[::-1]
    assert look_up(uri).fingerprint != before


def test_a_server_without_versions_gives_no_fingerprint() -> None:
    assert WebFile("https://a/b.gguf", "", 7).fingerprint == ""


def test_a_download_is_resumed_at_the_byte_where_it_broke(web: Hub, tmp_path: Path) -> None:
    web.faults.append(Fault("model", method="GET", cut_after=100_000, times=1))
    download(look_up(f"{web.url}/web/a/model.gguf"), tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert web.sent["a/model.gguf"] == len(CONTENT)


@pytest.mark.parametrize("is_size_known", [True, False])
def test_a_connection_that_breaks_after_the_last_byte_costs_no_byte_again(
    web: Hub, tmp_path: Path, is_size_known: bool
) -> None:
    uri = f"{web.url}/web/a/model.gguf"
    web.faults.append(Fault("model", method="GET" if is_size_known else "GET|HEAD", is_unfinished=True))
    file = look_up(uri)
    assert file.size_bytes == (len(CONTENT) if is_size_known else None)
    web.faults[0].times = 1
    assert download(file, tmp_path / "model.gguf") == hashlib.sha256(CONTENT).hexdigest()
    assert web.sent["a/model.gguf"] == len(CONTENT)


def test_a_file_that_changes_during_the_download_is_not_mixed(web: Hub, tmp_path: Path) -> None:
    file = look_up(f"{web.url}/web/a/model.gguf")
    web.repositories["web/files"].files["a/model.gguf"] = CONTENT[::-1]
    with pytest.raises(RunFailure, match="has changed since the download began") as caught:
        download(file, tmp_path / "model.gguf")
    assert caught.value.failure is FailureClass.HUB_CORRUPT


@pytest.mark.parametrize(
    ("fault", "failure", "sentence"),
    [
        (Fault("model", status=404), FailureClass.MODEL_NOT_FOUND, "404"),
        (Fault("model", status=401), FailureClass.HUB_FORBIDDEN, "401"),
        (Fault("model", status=403), FailureClass.HUB_FORBIDDEN, "403"),
        (Fault("model", status=429, headers={"Retry-After": "3600"}), FailureClass.HUB_RATE_LIMITED, "3600 s"),
        (Fault("model", status=500), FailureClass.HUB_UNREACHABLE, "500"),
        (Fault("model", cut_after=0, method="GET"), FailureClass.HUB_UNREACHABLE, "RemoteProtocolError"),
        (Fault("model", content=CONTENT[:1000], method="GET"), FailureClass.HUB_CORRUPT, "received 1000 bytes"),
        (
            Fault("model", status=302, headers={"Location": "http://127.0.0.1:1/model.gguf"}),
            FailureClass.HUB_FORBIDDEN,
            "not encrypted",
        ),
    ],
    ids=lambda value: f"{value.status} {value.cut_after}" if isinstance(value, Fault) else None,
)
def test_each_failure_of_a_server_has_its_class(
    web: Hub, tmp_path: Path, fault: Fault, failure: FailureClass, sentence: str
) -> None:
    web.faults.append(fault)
    found = failure_of(f"{web.url}/web/a/model.gguf", tmp_path / "model.gguf")
    assert found.failure is failure, found
    assert sentence in found.message
    assert web.url in found.message


def test_a_limited_rate_is_waited_out(web: Hub, tmp_path: Path) -> None:
    web.faults.append(Fault("model", status=429, headers={"Retry-After": "1"}, times=1))
    download(look_up(f"{web.url}/web/a/model.gguf"), tmp_path / "model.gguf")


def test_a_certificate_that_is_not_trusted_is_named(web: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    failure = failure_of(f"{web.url}/web/a/model.gguf", tmp_path / "model.gguf")
    assert failure.failure is FailureClass.HUB_UNREACHABLE
    assert "the certificate is not trusted" in failure.message


def test_no_credentials_are_sent(web: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password word\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    look_up(f"{web.url}/web/a/model.gguf")
    assert not any("authorization" in headers for _, headers in web.headers)
