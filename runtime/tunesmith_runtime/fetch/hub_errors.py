"""Failures that both hubs' clients have in common: network, certificate, name resolution, disk."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.hub_types import RepositoryKind

TLS_HINT = (
    "correct the server's certificate; if a private authority signed it, add that to the certificates of the runtime image "
    "(SSL_CERT_FILE and REQUESTS_CA_BUNDLE)"
)
DNS_HINT = (
    "check the host's name in hub.endpoints of the chart's values and the DNS of the cluster; if the cluster has no way to the "
    "hub, list a mirror in hub.endpoints, or, for a name of the catalogue, put the other hub first in hub.order; or copy the files "
    "into the store and name their s3:// URI in {field}"
)
CHARACTERS = 300


def first_line(error: BaseException) -> str:
    """Return the first line of an error, cut. A message of ModelScope in another language is replaced by the message of
    its cause."""
    for each in causes(error):
        lines = [line.strip() for line in str(each).splitlines() if line.strip()]
        if lines and lines[0].isascii():
            return lines[0][:CHARACTERS]
    return type(error).__name__


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that led to it, including those in the arguments of urllib3's errors."""
    seen, pending = set[int](), [error]
    while pending:
        current = pending.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        linked = (current.__cause__, current.__context__, getattr(current, "reason", None), *current.args)
        pending.extend(each for each in linked if isinstance(each, BaseException))


def unreachable(kind: RepositoryKind, where: str, error: BaseException) -> RunFailure:
    """Return the failure of a server that did not answer, or of a disk on which its answer has no room.

    `kind`: what is read; `where`: its URI and the server.
    """
    chain = list(causes(error))
    if any(isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT) for each in chain):
        return RunFailure(FailureClass.DISK_FULL, f"{where}: the disk is full: {first_line(error)}")
    for each in chain:
        if isinstance(each, ssl.SSLError):
            message = (
                f"{where}: the certificate is not trusted: {getattr(each, 'verify_message', '') or first_line(each)}"
            )
            return RunFailure(FailureClass.HUB_UNREACHABLE, message, TLS_HINT)
        if isinstance(each, socket.gaierror):
            message = f"{where}: the host name has no address: {first_line(each)}"
            return RunFailure(FailureClass.HUB_UNREACHABLE, message, DNS_HINT.format(field=kind.field))
    return RunFailure(FailureClass.HUB_UNREACHABLE, f"{where}: {type(error).__name__}: {first_line(error)}")


def no_hub(where: str, error: Exception) -> RunFailure:
    """Return the failure of a server whose answer cannot be read, such as the page of a proxy."""
    return RunFailure(
        FailureClass.HUB_UNREACHABLE,
        f"{where}: the answer is not that of a hub: {type(error).__name__}: {first_line(error)}",
        "check the URLs in hub.endpoints of the chart's values",
    )
