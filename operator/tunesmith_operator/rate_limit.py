"""Client-side rate limit of requests to the API server: a token bucket that also respects Retry-After."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

TICK = 0.001
"""Resolution of event loops, in seconds: a shorter sleep only spins."""


class RateLimiter:
    """`qps` requests per second on average and bursts of `burst`, first in, first out.

    A request reserves its turn and sleeps until then, so that the rate holds for any number of waiters.
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
        """The turn of the next request, if the bucket is empty."""
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
        """Delay all requests for `seconds`, as the server asks in Retry-After."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
