"""A stopwatch of the share of the time that something takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Measures in which share of the time it runs."""

    def __init__(self) -> None:
        self._began, self._seconds = time.monotonic(), 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run within the block."""
        began = time.monotonic()
        yield
        self._seconds += time.monotonic() - began

    def share(self) -> float:
        """Return the share since the last call, or since the start, from 0 to 1."""
        now = time.monotonic()
        share = self._seconds / max(now - self._began, 1e-9)
        self._began, self._seconds = now, 0.0
        return min(1.0, share)
