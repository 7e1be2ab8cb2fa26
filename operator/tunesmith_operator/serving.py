"""HTTP servers with a bounded number of connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

CONNECTIONS = 512
"""Maximum of open connections. A push or a probe takes milliseconds: the oldest of so many is held open to do harm."""
IDLE_SECONDS = 15.0
"""Idle connections are closed after this time."""
SHUTDOWN_SECONDS = 2.0
"""Time for requests in flight when the operator stops."""


@asynccontextmanager
async def serving(application: web.Application, port: int, connections: int = CONNECTIONS) -> AsyncIterator[None]:
    """Serve on all addresses while the block runs. Beyond `connections`, the oldest are closed."""
    runner = web.AppRunner(
        application, access_log=None, keepalive_timeout=IDLE_SECONDS, shutdown_timeout=SHUTDOWN_SECONDS
    )
    await runner.setup()
    assert runner.server is not None
    listener = await asyncio.get_running_loop().create_server(_bounded(runner.server, connections), None, port)
    try:
        yield
    finally:
        listener.close()
        await runner.cleanup()


def _bounded(server: web.Server, limit: int) -> Callable[[], asyncio.Protocol]:
    """A protocol factory that closes the oldest connections to make room for a new one."""

    def connect() -> asyncio.Protocol:
        connections = [each for each in server.connections if each.transport is not None]
        for oldest in connections[: len(connections) - limit + 1]:
            oldest.force_close()
        return server()

    return connect
