"""A keyed work queue with the semantics of client-go's, and an urgent lane.

A key is never with two workers; a key that is added while a worker has it is handed out again afterwards; a key that
waits is handed out once, however often it was added. Keys are handed out first in, first out, so that a busy key cannot
starve the others; urgent keys precede the others. Unlike client-go's queue, handing out a key cancels its timer.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys that wait (`add`), that wait for a time (`add_after`), and that a worker has (`get` until `done`).

    All methods must be called from one event loop.
    """

    def __init__(
        self,
        first_delay: float = 0.5,
        longest_delay: float = 120.0,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first_delay, self._longest_delay, self._jitter = first_delay, longest_delay, jitter
        self._urgent: OrderedDict[K, float] = OrderedDict()
        self._waiting: OrderedDict[K, float] = OrderedDict()
        self._processing: dict[K, float] = {}
        self._again: set[K] = set()
        self._timers: dict[K, tuple[float, asyncio.Handle]] = {}
        """Due time and timer: not every event loop's timers have `when()`."""
        self._failures: dict[K, int] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        """Keys that a worker could take now."""
        return len(self._urgent) + len(self._waiting)

    @property
    def urgent(self) -> int:
        """Number of urgent keys that wait."""
        return len(self._urgent)

    @property
    def delayed(self) -> int:
        """Keys whose timer has not expired."""
        return len(self._timers)

    def is_busy(self, key: K) -> bool:
        """Whether a worker has `key` now."""
        return key in self._processing

    def oldest_seconds(self) -> float:
        """How long the longest waiting key has been waiting."""
        since = [next(iter(lane.values())) for lane in (self._urgent, self._waiting) if lane]
        return self._now() - min(since) if since else 0.0

    def longest_processing_seconds(self) -> float:
        """How long the slowest worker has had its key."""
        return self._now() - min(self._processing.values()) if self._processing else 0.0

    def add(self, key: K, urgent: bool = False) -> None:
        """Hand out `key` as soon as a worker is free; `urgent`: before all keys that are not."""
        if key in self._processing:
            self._again.add(key)
        elif key not in self._urgent and (urgent or key not in self._waiting):
            self._waiting.pop(key, None)
            (self._urgent if urgent else self._waiting)[key] = self._now()
            self._filled.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Add `key` after `seconds`; the earliest of several times counts."""
        if seconds <= 0:
            self.add(key)
            return
        due = self._now() + seconds
        if key in self._timers:
            earlier, timer = self._timers[key]
            if earlier <= due:
                return
            timer.cancel()
        self._timers[key] = due, asyncio.get_running_loop().call_at(due, self._on_timer, key)

    def add_after_failure(self, key: K) -> float:
        """Add `key` with an exponential backoff over its failures in a row, with jitter. Returns the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._longest_delay, self._first_delay * 2.0 ** min(failures, 60))
        seconds = self._jitter(delay / 2, delay)
        self.add_after(key, seconds)
        return seconds

    def reset_backoff(self, key: K) -> None:
        """Count the failures of `key` from zero again."""
        self._failures.pop(key, None)

    def cancel_timer(self, key: K) -> None:
        """Cancel the timer of `key`, if any. A key that already waits stays in the queue."""
        if key in self._timers:
            _, timer = self._timers.pop(key)
            timer.cancel()

    async def get(self) -> K:
        """Wait for the next key. It belongs to the caller until `done`.

        Its timer is cancelled: the reconcile that begins now decides when the next is due.
        """
        while not len(self):
            self._filled.clear()
            await self._filled.wait()
        key, _ = (self._urgent or self._waiting).popitem(last=False)
        self.cancel_timer(key)
        self._processing[key] = self._now()
        return key

    def done(self, key: K) -> None:
        """Return a key that `get` has handed out, whether its processing succeeded or not."""
        del self._processing[key]
        if key in self._again:
            self._again.remove(key)
            self.add(key)

    def _on_timer(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
