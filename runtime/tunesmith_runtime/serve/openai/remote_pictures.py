"""Pictures at https URLs, from the hosts that the service allows.

A client chooses what the server connects to. So there are no redirects, no other ports and no private addresses, and the server
connects to the address that was checked.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import string
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from tunesmith_runtime.serve.openai.bodies import MAX_BODY_BYTES
from tunesmith_runtime.serve.openai.pictures import LIMITS, refused

SECONDS = 20.0
"""Maximum time for the pictures of a request, and for each step of a connection."""
PORT = 443
CHUNK_BYTES = 1 << 16
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
Address = tuple[str, int]


@dataclass(frozen=True)
class RemotePictures:
    """Reads pictures from allowed hosts."""

    hosts: Collection[str]
    """Names in lower case."""
    address_of: Callable[[str], Address] = field(default_factory=lambda: public_address)
    """Returns the address to connect to. Raises OSError."""
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def check(self, images: Mapping[str, str]) -> None:
        """Check `images`, place -> https URL. Raises ApiError for a URL that is not allowed."""
        for place, url in images.items():
            self._host(place, url)

    def read(self, images: Mapping[str, str]) -> dict[str, bytes]:
        """Return the content of `images`, place -> https URL, by URL. Raises ApiError."""
        deadline, left = time.monotonic() + SECONDS, MAX_BODY_BYTES
        found: dict[str, bytes] = {}
        for place, url in images.items():
            if url not in found:
                found[url] = self._read(place, url, min(left, LIMITS.size_bytes), deadline)
                left -= len(found[url])
        return found

    def _host(self, place: str, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise refused(place, f"the URL of the image is malformed: {error}", None) from error
        if host not in self.hosts:
            allowed = (
                f"reads images from {', '.join(sorted(self.hosts))}" if self.hosts else "reads no images from URLs"
            )
            hint = f"send the image as a data: URL, or add {host} to spec.media.allowedHosts of the InferenceService"
            raise refused(place, f"the image is at {host!r:.80}, and this service {allowed}", hint)
        if port not in (None, PORT) or parts.username is not None:
            raise refused(place, "the URL of the image has a port or a user", f"write https://{host}/…")
        return host

    def _read(self, place: str, url: str, most: int, deadline: float) -> bytes:
        host = self._host(place, url)
        try:
            connection = _Connection(host, self.address_of(host), self.context)
            with contextlib.closing(connection):
                connection.request("GET", _target(url), headers={"Accept": "image/*", "User-Agent": "tunesmith"})
                response = connection.getresponse()
                if response.status != http.HTTPStatus.OK:
                    raise refused(place, f"the image cannot be read: {_status(response)}", "correct the URL")
                content = _content(response, most, deadline)
        except (OSError, http.client.HTTPException) as error:
            words = str(error) or type(error).__name__
            raise refused(place, f"the image cannot be read from {host}: {words:.200}", None) from error
        if content is None:
            sentence = f"the image has too many bytes: at most {LIMITS.size_bytes:,} are read, and {MAX_BODY_BYTES:,} for a request"
            raise refused(place, sentence, "make the image smaller")
        return content


class _Connection(http.client.HTTPSConnection):
    """A connection to an address whose certificate is that of a host."""

    def __init__(self, host: str, address: Address, context: ssl.SSLContext) -> None:
        super().__init__(host, timeout=SECONDS)
        self._address, self._tls = address, context

    def connect(self) -> None:
        """Connect without another look-up of the name."""
        self.sock = self._tls.wrap_socket(socket.create_connection(self._address, SECONDS), server_hostname=self.host)


def public_address(host: str) -> Address:
    """Return the first address of a host. Raises OSError where it has none, or a private one."""
    found = [entry[4] for entry in socket.getaddrinfo(host, PORT, type=socket.SOCK_STREAM)]
    if any(not is_public(str(address[0])) for address in found):
        raise OSError("the host has a private address")
    return str(found[0][0]), PORT


def is_public(address: str) -> bool:
    """Whether an address is of the internet, and not of a machine, a cluster or a cloud's metadata."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        embedded = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF) if found in NAT64 else None
        found = found.ipv4_mapped or found.sixtofour or embedded or found
    return found.is_global and not found.is_multicast


def _target(url: str) -> str:
    parts = urlsplit(url)
    return quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=string.punctuation)


def _status(response: http.client.HTTPResponse) -> str:
    if response.headers.get("Location"):
        return f"its host redirects to {response.headers['Location']!r:.200}, and redirects are not followed"
    return f"its host answers {response.status} {response.reason:.80}"


def _content(response: http.client.HTTPResponse, most: int, deadline: float) -> bytes | None:
    """Return the content of a response; None if it has more than `most` bytes. Raises OSError at the deadline."""
    content = bytearray()
    while chunk := response.read1(CHUNK_BYTES):
        content += chunk
        if len(content) > most:
            return None
        if time.monotonic() > deadline:
            raise TimeoutError(f"it took more than {SECONDS:g} s")
    return bytes(content)
