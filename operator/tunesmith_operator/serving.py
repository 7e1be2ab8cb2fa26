"""HTTP servers that no flood of connections uses up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

CONNECTIONS = 512
"""Open ones at most. A push or a probe takes milliseconds: the oldest of so many is one that is held open to do harm."""
IDLE_SECONDS = 15.0
"""A connection on which no request comes is closed after so long."""
SHUTDOWN_SECONDS = 2.0
"""Time for requests under way when the operator stops."""


@asynccontextmanager
async def serving(application: web.Application, port: int, connections: int = CONNECTIONS) -> AsyncIterator[None]:
    """Serve on all addresses for as long as the block runs. Of too many connections the oldest are closed."""
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
    """Makes the protocol of each new connection, with room made for it."""

    def connect() -> asyncio.Protocol:
        open_ones = [one for one in server.connections if one.transport is not None]
        for oldest in open_ones[: len(open_ones) - limit + 1]:
            oldest.force_close()
        return server()

    return connect
