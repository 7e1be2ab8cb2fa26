"""How often we ask the API server: a token bucket that also holds still when the server says Retry-After."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

TICK = 0.001
"""Seconds: event loops count in milliseconds, and one that is asked to sleep for less only spins."""


class RateLimiter:
    """`qps` requests a second on average and `burst` at once, in the order of asking.

    A request takes its place at once and sleeps until its turn, so that the rate holds for any number of waiters.
    """

    def __init__(
        self,
        qps: float,
        burst: int,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._interval, self._burst = 1.0 / qps, burst
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._sleep = sleep
        self._next = float("-inf")
        """When the bucket would be one short of full: the turn of the next request, less the burst."""
        self._paused_until = float("-inf")

    async def acquire(self) -> None:
        """Return when the next request may be sent."""
        now = self._clock()
        self._next = max(self._next, now - (self._burst - 1) * self._interval)
        turn = self._next
        self._next += self._interval
        while (wait := max(turn, self._paused_until) - self._clock()) > TICK:
            await self._sleep(wait)

    def pause(self, seconds: float) -> None:
        """Send nothing for `seconds`: the server has asked for it."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
