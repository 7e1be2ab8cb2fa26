"""A keyed work queue with the semantics of client-go's: what is added while it is worked on is worked on once more.

One key is never with two workers; however often a key is added while it waits, it is handed out once; and what was
added is handed out at some time after the last add. Unlike there, a key that is handed out has no timer left. Keys
come out in the order they went in, so that a busy key stands behind the others each time; but those that are to be first.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys that wait (`add`), that wait for a time (`add_after`), and that are with a worker (`get` until `done`).

    All methods must be called from one event loop. `clock` is in seconds and only goes forward.
    """

    def __init__(
        self,
        first_delay: float = 0.5,
        longest_delay: float = 120.0,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first_delay, self._longest_delay, self._jitter = first_delay, longest_delay, jitter
        self._first: OrderedDict[K, float] = OrderedDict()
        self._waiting: OrderedDict[K, float] = OrderedDict()
        self._processing: dict[K, float] = {}
        self._again: set[K] = set()
        self._timers: dict[K, tuple[float, asyncio.Handle]] = {}
        """When they are due. Not every event loop's handles tell."""
        self._failures: dict[K, int] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        """Keys that could be worked on now."""
        return len(self._first) + len(self._waiting)

    @property
    def first(self) -> int:
        """Those of them that come before the others."""
        return len(self._first)

    def is_busy(self, key: K) -> bool:
        """Whether a worker is with `key` now."""
        return key in self._processing

    @property
    def delayed(self) -> int:
        """Keys whose time has not come."""
        return len(self._timers)

    def oldest_seconds(self) -> float:
        """How long the first of the waiting keys has been waiting."""
        since = [next(iter(line.values())) for line in (self._first, self._waiting) if line]
        return self._now() - min(since) if since else 0.0

    def longest_processing_seconds(self) -> float:
        """How long a worker has been with one key, for the slowest of them."""
        return self._now() - min(self._processing.values()) if self._processing else 0.0

    def add(self, key: K, first: bool = False) -> None:
        """Ask for `key` to be worked on, as soon as a worker is free; `first`: before all that are not."""
        if key in self._processing:
            self._again.add(key)
        elif key not in self._first and (first or key not in self._waiting):
            self._waiting.pop(key, None)
            (self._first if first else self._waiting)[key] = self._now()
            self._filled.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Ask for `key` to be worked on after `seconds`; of several times asked for, the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        due = self._now() + seconds
        if key in self._timers:
            earlier, timer = self._timers[key]
            if earlier <= due:
                return
            timer.cancel()
        self._timers[key] = due, asyncio.get_running_loop().call_at(due, self._due, key)

    def add_failed(self, key: K) -> float:
        """Ask for `key` once more after a failure, later with each failure in a row. Returns the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._longest_delay, self._first_delay * 2.0 ** min(failures, 60))
        seconds = self._jitter(delay / 2, delay)
        self.add_after(key, seconds)
        return seconds

    def forget_failures(self, key: K) -> None:
        """What failed has succeeded: its next failure is a first one again."""
        self._failures.pop(key, None)

    def discard_timer(self, key: K) -> None:
        """Drop the time asked for `key`, if any; what waits already goes on waiting."""
        if key in self._timers:
            _, timer = self._timers.pop(key)
            timer.cancel()

    async def get(self) -> K:
        """The next key, when there is one. It is the caller's until `done`.

        A time asked for it is dropped: whoever looks now knows better when to look again.
        """
        while not len(self):
            self._filled.clear()
            await self._filled.wait()
        key, _ = (self._first or self._waiting).popitem(last=False)
        self.discard_timer(key)
        self._processing[key] = self._now()
        return key

    def done(self, key: K) -> None:
        """The caller of `get` has finished with `key`, well or not."""
        del self._processing[key]
        if key in self._again:
            self._again.remove(key)
            self.add(key)

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
