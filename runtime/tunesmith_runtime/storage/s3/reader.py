"""The bytes of an object in order, across responses that break off."""

from __future__ import annotations

import logging
import time
from http.client import HTTPException
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage import Entry
from tunesmith_runtime.storage.s3.connection import Connection
from tunesmith_runtime.storage.s3.failures import split

log = logging.getLogger(__name__)

TRIES = 3
"""Requests without progress. boto3 does not retry a response that breaks off midway."""
PROGRESS_BYTES = 32 << 20
"""Bytes after which the tries are counted from the start."""


class ObjectReader:
    """Reads the version of an object that `entry` names, from byte `offset` to before byte `end`."""

    def __init__(self, connection: Connection, uri: str, entry: Entry, offset: int, end: int) -> None:
        self._connection = connection
        self._uri = uri
        self._entry = entry
        self._offset = offset
        self._end = end
        self._body: Any = None
        self._tries = 0
        self._failed_at = offset

    def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes into `buffer`, which must not reach behind the end. Returns their number, which is not 0.

        Raises RunFailure: StorageCorrupt if the object has changed, StorageUnreachable if its responses keep breaking off.
        """
        while True:
            reason = self._open() if self._body is None else ""
            count, reason = (0, reason) if reason else self._read(buffer)
            if count:
                return count
            self._retry(reason)

    def _open(self) -> str:
        """Request the rest. Returns why the response cannot be used."""
        bucket, key = split(self._uri)
        left = self._end - self._offset
        span = {} if left == self._entry.size_bytes else {"Range": f"bytes={self._offset}-{self._end - 1}"}
        with self._connection.failures(self._uri):
            response = self._connection.client.get_object(Bucket=bucket, Key=key, IfMatch=self._entry.etag, **span)
        self._body = response["Body"]
        length = response["ContentLength"]
        return "" if length == left else f"the answer has {length} bytes instead of {left}"

    def _read(self, buffer: memoryview) -> tuple[int, str]:
        """Return the number of bytes read, or 0 and the reason.

        The response is read by http.client's `readinto`, below botocore and urllib3, whose own methods allocate and copy every
        block: a fifth of the client's CPU time.
        """
        response = self._body._raw_stream
        try:
            count: int = response._fp.readinto(buffer)
        except (OSError, HTTPException) as error:
            return 0, f"{type(error).__name__}: {error}"
        self._offset += count
        if self._offset == self._end:
            response.release_conn()  # the connection is used again
            self._body = None
        return count, f"the answer ended at byte {self._offset} of {self._end}"

    def _retry(self, reason: str) -> None:
        self.close()
        if self._offset - self._failed_at >= PROGRESS_BYTES:
            self._tries = 0
        self._tries, self._failed_at = self._tries + 1, self._offset
        log.warning("%s: %s (try %d of %d)", self._uri, reason, self._tries, TRIES)
        if self._tries == TRIES:
            message = f"{self._uri} at {self._connection.endpoint}: {reason}"
            raise RunFailure(FailureClass.STORAGE_UNREACHABLE, message)
        time.sleep(self._tries)

    def close(self) -> None:
        """Close the connection if the response has not been read to its end."""
        if self._body is not None:
            self._body.close()
            self._body = None
