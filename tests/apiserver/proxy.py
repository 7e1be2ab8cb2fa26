"""A proxy between the operator and the API server: records the operator's writes, and injects faults.

It listens on 127.0.0.1 without TLS, passes the caller's credentials on, and speaks TLS to the API server.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

from devcluster.standalone import ControlPlane, free_ports

HOST = "127.0.0.1"
REQUEST_HEADERS = ("Authorization", "Accept", "Content-Type", "User-Agent")
ANSWER_HEADERS = ("Content-Type", "Retry-After", "Warning")
HASH = re.compile(r"-[0-9a-f]{10,}$")
"""At the end of the name of a version, which is another one in each namespace."""
LONGEST_LINE = 8 * 2**20
"""Bytes; a watch event is one line."""


Lines = AsyncGenerator[bytes, None]
"""The events of a watch, as they come."""


class Dropped(Exception):
    """The caller gets no answer: its connection is cut."""


@dataclass(frozen=True)
class Call:
    """One request, as it came from the operator."""

    method: str
    target: str
    """Path and query."""
    headers: Mapping[str, str]
    body: bytes
    what: str = ""
    """Of a write: what it is for, the same in every run; ends in ` (2)` when it is asked for a second time."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def is_watch(self) -> bool:
        return bool({"watch=true", "watch=1"} & set(self.target.partition("?")[2].split("&")))

    @property
    def is_lease(self) -> bool:
        return "/coordination.k8s.io/" in self.path

    @property
    def is_write(self) -> bool:
        """Whether it is one of the writes that are numbered. The Lease is renewed all the time."""
        return self.method != "GET" and not self.is_lease

    @property
    def place(self) -> list[str]:
        """Namespace, resource, name, subresource: as many of them as there are."""
        return self.path.partition("/namespaces/")[2].split("/") if "/namespaces/" in self.path else []

    @property
    def namespace(self) -> str:
        return self.place[0] if self.place else ""


@dataclass(frozen=True)
class Answer:
    """What the caller gets: a body, or for a watch the lines of its events."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    lines: Lines | None = None


Forward = Callable[[], Awaitable[Answer]]
Fault = Callable[[Call, Forward], Awaitable[Answer]]
"""Stands between a call and the API server: may wait, forward or not, answer otherwise, or raise Dropped."""
Tamper = Callable[[Call, Lines], Lines]
"""What becomes of the lines of a watch."""


@dataclass(frozen=True)
class Write:
    """A write that has come to the proxy, in the order of coming."""

    number: int
    namespace: str
    what: str
    call: Call


async def no_fault(_: Call, forward: Forward) -> Answer:
    """All is well."""
    return await forward()


async def no_tampering(_: Call, lines: Lines) -> Lines:
    """All is well."""
    async for line in lines:
        yield line


class Proxy:
    """A context manager: a server in a thread of its own. `fault` and `tamper` may be set at any time from any thread."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.port = free_ports(1)[0]
        self.fault: Fault = no_fault
        self.tamper: Tamper = no_tampering
        self.log: list[Write] = []
        self.answers: Counter[int] = Counter()
        """How many answers of each HTTP status have been given; 0 counts the calls that got none."""
        self._seen: Counter[tuple[str, str]] = Counter()
        self._streams: list[web.Request] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def writes(self, namespace: str) -> list[Write]:
        """What has been written in a namespace so far, or was tried."""
        return [write for write in self.log if write.namespace == namespace]

    def cut_streams(self) -> None:
        """Cut the watches that are open."""

        def cut_all() -> None:
            for request in self._streams:
                _cut(request)

        self._loop.call_soon_threadsafe(cut_all)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        tls = ssl.create_default_context(cafile=str(self.plane.ca))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=tls),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            read_bufsize=LONGEST_LINE,
        )
        application = web.Application(client_max_size=LONGEST_LINE)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self.port).start()

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
        call = self._noted(Call(request.method, request.raw_path, headers, await request.read()))
        try:
            answer = await self.fault(call, lambda: self._forward(call))
            self.answers[answer.status] += 1
            if answer.lines is None:
                return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
            return await self._stream(request, call, answer)
        except (Dropped, aiohttp.ClientError, OSError):
            self.answers[0] += 1
            _cut(request)
            raise

    def _noted(self, call: Call) -> Call:
        if not call.is_write:
            return call
        what = described(call)
        key = (call.namespace, what)
        self._seen[key] += 1
        what += f" ({self._seen[key]})" if self._seen[key] > 1 else ""
        call = Call(call.method, call.target, call.headers, call.body, what)
        self.log.append(Write(len(self.log) + 1, call.namespace, what, call))
        return call

    async def _forward(self, call: Call) -> Answer:
        # What has been sent reaches the API server, whatever becomes of the caller.
        return await asyncio.shield(asyncio.ensure_future(self._ask(call)))

    async def _ask(self, call: Call) -> Answer:
        headers = {**call.headers, "Accept-Encoding": "identity"}
        url = URL(self.plane.url + call.target, encoded=True)
        response = await self._session.request(call.method, url, headers=headers, data=call.body or None)
        kept = {name: response.headers[name] for name in ANSWER_HEADERS if name in response.headers}
        if call.is_watch and response.status == 200:
            return Answer(response.status, kept, lines=_lines(response))
        async with response:
            return Answer(response.status, kept, await response.read())

    async def _stream(self, request: web.Request, call: Call, answer: Answer) -> web.StreamResponse:
        assert answer.lines is not None
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        await response.prepare(request)
        self._streams.append(request)
        try:
            async with aclosing(answer.lines), aclosing(self.tamper(call, answer.lines)) as lines:
                async for line in lines:
                    await response.write(line)
        finally:
            self._streams.remove(request)
        await response.write_eof()
        return response


def _cut(request: web.Request) -> None:
    if request.transport:
        request.transport.abort()


async def _lines(response: aiohttp.ClientResponse) -> Lines:
    async with response:
        async for line in response.content:
            yield line


def described(call: Call) -> str:
    """What a write is for: `create jobs/a-tune-1`, `status finetunejobs/a Running`, `event FineTuneJob/a Running`."""
    _, resource, name, subresource = [*call.place, "", "", "", ""][:4]
    body = json.loads(call.body or b"{}")
    if resource == "events":
        about = body["involvedObject"]
        return f"event {about['kind']}/{about['name']} {body['reason']}"
    if subresource == "status":
        status = _status(body)
        return f"status {resource}/{name} {status.get('phase')} {status.get('reason')}"
    verb = {"POST": "create", "PUT": "replace", "PATCH": "apply", "DELETE": "delete"}[call.method]
    return f"{verb} {resource}/{HASH.sub('-…', name or body['metadata']['name'])}"


def _status(body: Any) -> Mapping[str, Any]:
    """The status in a JSON patch, or in an object."""
    if isinstance(body, list):
        return next((operation["value"] for operation in body if operation["path"] == "/status"), {})
    status: Mapping[str, Any] = body.get("status", {})
    return status
