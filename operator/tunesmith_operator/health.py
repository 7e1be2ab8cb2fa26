"""/livez, /readyz and /metrics.

/livez fails only for what a restart can mend: a dead or hanging worker, a stalled event loop. It ignores an unreachable
API server, which a restart would not help.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tunesmith_operator import metrics
from tunesmith_operator.queue import WorkQueue

HEARTBEAT_SECONDS = 1.0
LONGEST_LAG_SECONDS = 30.0
LONGEST_RECONCILE_SECONDS = 600.0
"""Far beyond the sum of a reconcile's request timeouts and rate limiter delays: a deadlock."""


@dataclass
class Health:
    """The state behind the probes."""

    queue: WorkQueue[Any]
    clock: Callable[[], float]
    tasks: Sequence[asyncio.Task[Any]] = ()
    """Tasks that must not end."""
    ready: bool = False
    last_beat: float = field(init=False)

    def __post_init__(self) -> None:
        self.last_beat = self.clock()

    def problems(self) -> list[str]:
        """Problems that a restart would mend; empty if healthy."""
        found = [f"{task.get_name()} has ended" for task in self.tasks if task.done()]
        if (lag := self.clock() - self.last_beat - HEARTBEAT_SECONDS) > LONGEST_LAG_SECONDS:
            found.append(f"the event loop is {lag:.0f} s late")
        if (seconds := self.queue.longest_processing_seconds()) > LONGEST_RECONCILE_SECONDS:
            found.append(f"a worker has been with one resource for {seconds:.0f} s")
        return found

    async def beat(self) -> None:
        """Measure the delay of the event loop until cancelled."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            now = self.clock()
            metrics.LOOP_LAG_SECONDS.set(max(0.0, now - self.last_beat - HEARTBEAT_SECONDS))
            self.last_beat = now

    def application(self) -> web.Application:
        """The three endpoints."""
        application = web.Application()
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics)
        return application

    async def _livez(self, _: web.Request) -> web.Response:
        problems = self.problems()
        return web.Response(status=500 if problems else 200, text="\n".join(problems or ["ok"]) + "\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 503, text="ok\n" if self.ready else "starting\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        metrics.QUEUE_DEPTH.set(len(self.queue))
        metrics.QUEUE_DELAYED.set(self.queue.delayed)
        metrics.QUEUE_OLDEST_SECONDS.set(self.queue.oldest_seconds())
        return web.Response(
            body=metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )
