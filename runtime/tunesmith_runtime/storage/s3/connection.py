"""What transfers of content share: a boto3 client, and how its errors are reported."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from tunesmith_runtime.storage.s3.failures import failures

STREAMS_PER_FILE = 4
"""Parts of a file that are transferred at a time."""


@dataclass(frozen=True)
class Connection:
    """A boto3 client for content, with the endpoint's name in messages."""

    client: Any
    endpoint: str

    def failures(self, uri: str) -> AbstractContextManager[None]:
        """Raise errors of the client as RunFailure that names `uri` and the endpoint."""
        return failures(uri, self.endpoint)
