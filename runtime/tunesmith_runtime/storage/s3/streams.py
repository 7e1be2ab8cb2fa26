"""The streams of a download: one for a file as long as that is fast enough, more where the network limits it.

One request for a whole object is the cheapest for both sides, and lets every byte be hashed while it is at hand: on two cores that
the server shares, more streams only cost CPU time. Over a distance, one connection carries a fraction of the bandwidth.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from tunesmith_runtime.storage import Entry
from tunesmith_runtime.storage.parts import BLOCK_BYTES, OrderedHash, Part, pwrite_all
from tunesmith_runtime.storage.s3.connection import STREAMS_PER_FILE, Connection, Gauge
from tunesmith_runtime.storage.s3.reader import ObjectReader
from tunesmith_runtime.storage.s3.runs import Run, Runs

WINDOW_SECONDS = 0.25
"""How often a stream decides whether its file needs a further one."""
WAITING_SHARE = 0.8
"""A stream that waits for bytes for more of its time is limited by the network or the server."""


def needs_stream(waiting_share: float, running: int, cores: int) -> bool:
    """Whether a file needs a further stream.

    `waiting_share`: the share of its time that one of its streams waited for bytes. `running`: streams of all files.
    """
    return waiting_share > WAITING_SHARE or running < cores


class Pace:
    """The share of a stream's time that it waits for bytes, in windows of WINDOW_SECONDS."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._waited = 0.0

    def note(self, waited: float) -> float | None:
        """Add a wait in seconds. At the end of a window, return the share, and begin the next window."""
        self._waited += waited
        now = time.perf_counter()
        if now - self._since < WINDOW_SECONDS:
            return None
        share = self._waited / (now - self._since)
        self._since, self._waited = now, 0.0
        return share


class Streams:
    """Downloads the missing parts of a file, and hashes all of it."""

    def __init__(
        self,
        connection: Connection,
        uri: str,
        entry: Entry,
        descriptor: int,
        parts: list[Part],
        present: set[int],
        on_part: Callable[[Part], None],
    ) -> None:
        """`present`: numbers of the parts that the file has. `on_part` is called in a stream's thread with each new part."""
        self._connection = connection
        self._uri = uri
        self._entry = entry
        self._descriptor = descriptor
        self._parts = parts
        self._on_part = on_part
        self._runs = Runs(part.number for part in parts if part.number not in present)
        self._hash = OrderedHash(descriptor, parts, present)
        self._running = Gauge()
        self._pool = ThreadPoolExecutor(STREAMS_PER_FILE)
        self._cores = len(os.sched_getaffinity(0))

    def run(self) -> str:
        """Return the sha256 of the file as hex. Raises the first failure of a stream."""
        self._pool.submit(self._stream)
        try:
            return self._hash.follow()
        finally:
            self._runs.stop()
            self._pool.shutdown(cancel_futures=True)

    def _stream(self) -> None:
        buffer, pace = memoryview(bytearray(BLOCK_BYTES)), Pace()
        try:
            with self._running.one_more(), self._connection.streams.one_more():
                while (run := self._runs.take()) is not None:
                    self._download(run, buffer, pace)
        except BaseException as failure:  # noqa: BLE001, `run` raises it
            self._hash.abort(failure)

    def _download(self, run: Run, buffer: memoryview, pace: Pace) -> None:
        """Download the parts of a run from one response, until other streams have taken the rest."""
        first, last = self._parts[run.next], self._parts[run.stop - 1]
        with closing(ObjectReader(self._connection, self._uri, self._entry, first.offset, last.end)) as reader:
            while (number := self._runs.begin(run)) is not None:
                part = self._parts[number]
                is_hashed = self._receive(reader, part, buffer, pace)
                self._on_part(part)
                self._hash.complete(part, is_hashed)

    def _receive(self, reader: ObjectReader, part: Part, buffer: memoryview, pace: Pace) -> bool:
        """Write a part into the file. Returns whether it was also hashed, as its turn had come."""
        offset, is_next = part.offset, self._hash.is_next(part)
        while offset < part.end:
            before = time.perf_counter()
            count = reader.readinto(buffer[: part.end - offset])
            waited = time.perf_counter() - before
            block = buffer[:count]
            if is_next:
                self._hash.update(block)
            pwrite_all(self._descriptor, block, offset)
            offset += count
            self._consider_stream(pace.note(waited))
        return is_next

    def _consider_stream(self, waiting_share: float | None) -> None:
        if waiting_share is None or self._running.value >= STREAMS_PER_FILE:
            return
        if needs_stream(waiting_share, self._connection.streams.value, self._cores):
            self._pool.submit(self._stream)
