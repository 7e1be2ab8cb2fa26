from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import web

from devcluster.standalone import free_ports
from tunesmith_operator.serving import serving


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def get(port: int) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
        return answer.status


async def test_idle_connections_are_closed_for_new_ones() -> None:
    application = web.Application()
    application.router.add_get("/", hello)
    [port] = free_ports(1)
    async with serving(application, port, connections=5):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        for number, (_, writer) in enumerate(held):
            writer.write(b"GET / HTTP/1.1\r\n" if number % 2 else b"")  # a request that never ends
        assert [await get(port) for _ in range(5)] == [200] * 5
        closed = [await asyncio.wait_for(reader.read(), 10) for reader, _ in held[:8]]
        assert closed == [b""] * 8
        for _, writer in held:
            writer.close()
    try:
        await get(port)
    except aiohttp.ClientConnectionError:
        return
    raise AssertionError("the port is still open")


async def test_a_request_whose_body_never_arrives_blocks_no_others() -> None:
    async def read(request: web.Request) -> web.Response:
        return web.Response(text=await request.text())

    application = web.Application()
    application.router.add_get("/", hello)
    application.router.add_post("/", read)
    [port] = free_ports(1)
    async with serving(application, port, connections=3):
        for _ in range(9):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
            await writer.drain()
        assert [await get(port) for _ in range(3)] == [200] * 3
