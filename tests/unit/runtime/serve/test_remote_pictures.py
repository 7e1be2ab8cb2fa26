"""Images at https URLs come from allowed hosts alone, by a connection to a public address, within bounds."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import tinyvision
from tunesmith_runtime.media.pictures import PictureLimits
from tunesmith_runtime.serve.openai import remote_pictures as module
from tunesmith_runtime.serve.openai.errors import ApiError
from tunesmith_runtime.serve.openai.remote_pictures import RemotePictures, is_public, public_address

HOST, PLACE = "images.example.com", "messages[0].content[1]"
PICTURE = tinyvision.picture("red")


class Handler(BaseHTTPRequestHandler):
    """Serves a picture at /a.png, and what is wrong with others at their own paths."""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "https://169.254.169.254/latest/meta-data")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = {"/a.png": PICTURE, "/%C3%A4%20b.png?size=1": PICTURE, "/large": bytes(1 << 20)}.get(self.path)
        self.send_response(404 if content is None else 200)
        self.end_headers()  # without a length: the end of the connection ends the content
        self.wfile.write(content or b"not here")

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def make_certificate(folder: Path, host: str) -> Path:
    """A self-signed certificate of a host, with its key in the same file."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    certificate, key = folder / "crt", folder / "key"
    subprocess.run([*command, "-out", str(certificate), "-keyout", str(key)], check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + key.read_text())
    return certificate


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemotePictures]:
    """A service that allows HOST, which is a server of this process."""
    certificate = make_certificate(tmp_path_factory.mktemp("tls"), HOST)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = ("127.0.0.1", server.server_address[1])
    yield RemotePictures({HOST, "other.example.com"}, lambda _: address, ssl.create_default_context(cafile=certificate))
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["/a.png", "/ä b.png?size=1"])
def test_an_image_of_an_allowed_host_is_read(remote: RemotePictures, path: str) -> None:
    url = f"https://{HOST}{path}"
    remote.check({PLACE: url})
    assert remote.read({PLACE: url, "messages[2].content[0]": url}) == {url: PICTURE}


REFUSED: dict[str, tuple[str, str]] = {
    "a host that is not allowed": (
        "https://evil.example.com/a.png",
        f"reads images from {HOST}, other.example.com. Send the image as a data: URL, or add evil.example.com to spec.media",
    ),
    "an allowed host as the user of another": (f"https://{HOST}@evil.example.com/a.png", "is at 'evil.example.com'"),
    "a user": (f"https://me:secret@{HOST}/a.png", f"has a port or a user. Write https://{HOST}/…."),
    "another port": (f"https://{HOST}:8443/a.png", "has a port or a user"),
    "a port that is none": (f"https://{HOST}:99999/a.png", "is malformed"),
    "no host": ("https:///a.png", "is at ''"),
    "an address that is no IPv6 address": ("https://[::1/a.png", "is malformed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_url_that_is_not_allowed_is_refused_before_a_connection(remote: RemotePictures, case: str) -> None:
    url, words = REFUSED[case]
    with pytest.raises(ApiError) as refused:
        remote.check({PLACE: url})
    assert words in refused.value.message
    assert (refused.value.status, refused.value.param) == (400, PLACE)


FAILING: dict[str, tuple[str, str]] = {
    "a redirect": (f"https://{HOST}/moved", "redirects to 'https://169.254.169.254/latest/meta-data', and redirects are"),
    "a missing file": (f"https://{HOST}/missing", "its host answers 404 Not Found"),
    "the certificate of another host": ("https://other.example.com/a.png", "certificate is not valid for 'other.example.com'"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILING)
def test_an_image_that_cannot_be_fetched_is_refused_with_the_cause(remote: RemotePictures, case: str) -> None:
    url, words = FAILING[case]
    with pytest.raises(ApiError) as refused:
        remote.read({PLACE: url})
    assert words in refused.value.message
    assert (refused.value.status, refused.value.param) == (400, PLACE)


@pytest.mark.parametrize(
    ("name", "limit"), [("LIMITS", PictureLimits(size_bytes=100_000)), ("MAX_BODY_BYTES", 100_000)]
)
def test_no_more_bytes_are_read_than_allowed(
    remote: RemotePictures, monkeypatch: pytest.MonkeyPatch, name: str, limit: Any
) -> None:
    monkeypatch.setattr(module, name, limit)
    with pytest.raises(ApiError, match="has too many bytes: at most"):
        remote.read({PLACE: f"https://{HOST}/large"})


def test_an_image_that_comes_too_slowly_is_given_up(remote: RemotePictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with pytest.raises(ApiError, match="it took more than 20 s"):
        remote.read({PLACE: f"https://{HOST}/large"})


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("64:ff9b::5db8:d822", True),
        ("127.0.0.1", False),
        ("10.0.0.7", False),
        ("192.168.1.1", False),
        ("172.20.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fd00::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::a00:7", False),
        ("2002:a00:7::1", False),
    ],
)
def test_addresses_of_machines_clusters_and_clouds_are_not_public(address: str, expected: bool) -> None:
    assert is_public(address) is expected


@pytest.mark.parametrize("private", ["10.0.0.7", "::1"])
def test_a_host_with_a_private_address_among_others_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch, private: str
) -> None:
    def resolved(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 443)) for each in ("93.184.216.34", private)]

    monkeypatch.setattr(module.socket, "getaddrinfo", resolved)
    with pytest.raises(OSError, match="private address"):
        public_address(HOST)
    with pytest.raises(ApiError, match="private address"):
        RemotePictures({HOST}).read({PLACE: f"https://{HOST}/a.png"})
