"""Readiness probes. A probe returns the empty string if the component is ready, else the complaint."""

from __future__ import annotations

import socket
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True)
class Http:
    """A GET that must answer 200. With `ca` the server must show a certificate of that authority."""

    url: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __call__(self) -> str:
        try:
            with urllib.request.build_opener(*self._handlers()).open(self.url, timeout=TIMEOUT_SECONDS):
                return ""
        except urllib.error.HTTPError as error:
            return f"{self.url} answers {error.code}: {error.read(300).decode(errors='replace').strip()}"
        except (OSError, ValueError) as error:
            return f"{self.url} does not answer: {error}"

    def _handlers(self) -> list[urllib.request.BaseHandler]:
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self.url.startswith("https:"):
            context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
            if self.ca is None:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.certificate and self.key:
                context.load_cert_chain(self.certificate, self.key)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        return handlers


@dataclass(frozen=True)
class Tcp:
    """A connection that must be accepted."""

    host: str
    port: int

    def __call__(self) -> str:
        try:
            socket.create_connection((self.host, self.port), timeout=TIMEOUT_SECONDS).close()
        except OSError as error:
            return f"{self.host}:{self.port} does not accept connections: {error}"
        return ""


@dataclass(frozen=True)
class UnixSocket:
    """A connection to a socket file that must be accepted."""

    path: Path

    def __call__(self) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT_SECONDS)
            try:
                client.connect(str(self.path))
            except OSError as error:
                return f"{self.path} does not accept connections: {error}"
        return ""
