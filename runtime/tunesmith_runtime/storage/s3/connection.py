"""What transfers of content share: a boto3 client, how its errors are reported, and how many streams are running."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tunesmith_runtime.storage.s3.failures import failures

STREAMS_PER_FILE = 4
"""Parts of a file that are transferred at a time."""


class Gauge:
    """A number of running things. Safe to use from threads."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one more until the block ends."""
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)

    def _add(self, change: int) -> None:
        with self._lock:
            self.value += change


@dataclass(frozen=True)
class Connection:
    """A boto3 client for content, with the endpoint's name in messages."""

    client: Any
    endpoint: str
    streams: Gauge = field(default_factory=Gauge)
    """Streams of downloads, of all files."""

    def failures(self, uri: str) -> AbstractContextManager[None]:
        """Raise errors of the client as RunFailure that names `uri` and the endpoint."""
        return failures(uri, self.endpoint)
