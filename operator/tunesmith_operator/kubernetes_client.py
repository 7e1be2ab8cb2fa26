"""The client over HTTP: kubernetes.aio for credentials and transport, raw JSON, none of its typed models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from tunesmith_operator import metrics
from tunesmith_operator.client import FIELD_MANAGER, RESOURCES, ApiError, Raw
from tunesmith_operator.connection import USER_AGENT, authorization, load_configuration
from tunesmith_operator.plan.names import UID_LABEL
from tunesmith_operator.rate_limit import RateLimiter

TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=100)
"""The server sends a bookmark each minute."""
TRIES = 8
"""How often one request is sent while the answer is 429, or 401 with a token that may have been renewed: an Event that is
refused after all is lost."""
PAGE = 250
NOBODY = f"{UID_LABEL}=nobody"
"""Selects nothing."""
NO_LIMIT = 0
"""Of connections."""
LONGEST_PAUSE = 30.0
"""Seconds; what a proxy asks for beyond this would stop the operator rather than spare the server."""
LEASES = f"/apis/{RESOURCES['Lease'].api_version}/"
"""Requests below this path neither wait with the others nor are sent again: the leader has its own pace, and a Lease
that is renewed late is lost."""

UNREACHABLE = (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError)

JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{JSON}"
"""Of what was written, the version is news and nothing else."""
APPLY_PATCH = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


class KubernetesClient:
    """`tunesmith_operator.client.Client` on a cluster.

    `may_write` is asked right before each write is sent, and raises where this process must not write any more.
    """

    def __init__(self, limiter: RateLimiter, may_write: Callable[[], None] = lambda: None) -> None:
        self._limiter, self.may_write = limiter, may_write
        self._configuration: Configuration | None = None
        self._transport: RESTClientObject | None = None

    async def close(self) -> None:
        if self._transport:
            await self._transport.close()

    async def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        try:
            return await self._request("GET", RESOURCES[kind].path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
        cached: bool = False,
        since: str | None = None,
    ) -> list[Raw]:
        query = {"labelSelector": _selector(labels), "fieldSelector": _selector(fields)}
        if cached:
            answer = await self._request(
                "GET", RESOURCES[kind].path(namespace), query=query | {"resourceVersion": since or "0"}
            )
            return list(answer["items"])
        items: list[Raw] = []
        async for item in self._each(kind, namespace, query | {"limit": str(limit or PAGE)}):
            items.append(item)
            if len(items) == limit:
                break
        return items

    def each(self, kind: str, namespace: str | None, labels: Mapping[str, str]) -> AsyncGenerator[Raw, None]:
        return self._each(kind, namespace, {"labelSelector": _selector(labels), "limit": str(PAGE)})

    async def _each(self, kind: str, namespace: str | None, query: Mapping[str, str]) -> AsyncGenerator[Raw, None]:
        following = ""
        while True:
            answer = await self._request("GET", RESOURCES[kind].path(namespace), query={**query, "continue": following})
            for item in answer["items"]:
                yield item
            following = answer["metadata"].get("continue") or ""
            if not following:
                return

    async def version(self, kind: str, namespace: str | None) -> str:
        query = {"labelSelector": NOBODY, "resourceVersion": "0"}
        answer = await self._request("GET", RESOURCES[kind].path(namespace), query=query)
        return str(answer["metadata"]["resourceVersion"])

    async def watch(
        self, kind: str, namespace: str | None, labels: Mapping[str, str], since: str
    ) -> AsyncGenerator[tuple[str, Raw], None]:
        path = RESOURCES[kind].path(namespace)
        query = {"labelSelector": _selector(labels), "watch": "1", "allowWatchBookmarks": "1", "resourceVersion": since}
        await self._limiter.acquire()
        try:
            response = await self._send("GET", f"{path}?{urlencode(query)}", None, JSON, WATCH_TIMEOUT)
            with closing(response):
                if response.status == 401:
                    await self._reload_credentials()
                if response.status >= 400:
                    raise _error(f"WATCH {path}", response.status, _parse(await response.read()))
                async for line in _lines(response.content):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise _error(f"WATCH {path}", event["object"].get("code", 500), event["object"])
                    yield event["type"], event["object"]
        except (*UNREACHABLE, ValueError) as error:  # a line that was cut off
            raise ApiError(f"WATCH {path}", 0, "Unreachable", str(error) or type(error).__name__) from error

    async def create(self, manifest: Raw) -> Raw:
        metadata = manifest["metadata"]
        path = RESOURCES[manifest["kind"]].path(metadata["namespace"])
        return await self._request("POST", path, body=manifest, query={"fieldManager": FIELD_MANAGER})

    async def replace(self, manifest: Raw) -> Raw:
        metadata = manifest["metadata"]
        path = RESOURCES[manifest["kind"]].path(metadata["namespace"], metadata["name"])
        return await self._request("PUT", path, body=manifest, query={"fieldManager": FIELD_MANAGER})

    async def apply(self, manifest: Raw, uid: str | None) -> Raw:
        metadata = manifest["metadata"]
        path = RESOURCES[manifest["kind"]].path(metadata["namespace"], metadata["name"])
        # Without force the server refuses to take fields from whoever made an object of this name meanwhile.
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if uid else "false"}
        body = {**manifest, "metadata": {**metadata, "uid": uid}} if uid else manifest
        try:
            return await self._request("PATCH", path, body=body, query=query, content_type=APPLY_PATCH)
        except ApiError as error:
            if not (uid and error.invalid):
                raise
        # What somebody else has put into a list may stand in the way of ours, as two ports of one name do: ours replaces it.
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("PATCH", path, body=body, query=query, content_type=MERGE_PATCH)

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._request("DELETE", RESOURCES[kind].path(namespace, name), body=body)
        except ApiError as error:
            if error.status != 404 and not error.conflict:
                raise

    async def write_status(self, resource: Raw, status: Raw) -> Raw:
        metadata = resource["metadata"]
        path = RESOURCES[resource["kind"]].path(metadata["namespace"], metadata["name"], "status")
        patch = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
            {"op": "add", "path": "/status", "value": status},
        ]
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("PATCH", path, body=patch, query=query, content_type=JSON_PATCH)

    async def _request(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
    ) -> Raw:
        parameters = {name: value for name, value in (query or {}).items() if value}
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        for tries_left in reversed(range(TRIES)):
            if not path.startswith(LEASES):
                await self._limiter.acquire()
            if method != "GET":
                self.may_write()
            try:
                response = await self._send(method, target, body, content_type, TIMEOUT)
                answer = _parse(await response.read())
            except UNREACHABLE as error:
                metrics.API_REQUESTS.labels(method, "none").inc()
                raise ApiError(f"{method} {target}", 0, "Unreachable", str(error) or type(error).__name__) from error
            metrics.API_REQUESTS.labels(method, str(response.status)).inc()
            if response.status < 400:
                return answer
            if response.status == 429 and tries_left and not path.startswith(LEASES):
                self._limiter.pause(_retry_after(response.headers))
            elif response.status == 401 and tries_left:
                await self._reload_credentials()
            else:
                break
        raise _error(f"{method} {path}", response.status, answer)

    async def _send(
        self, method: str, target: str, body: Any, content_type: str, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        configuration, transport = await self._connected()
        accept = METADATA if method in ("POST", "PATCH") and not target.startswith(LEASES) else JSON
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": USER_AGENT}
        headers |= await authorization(configuration)
        answer = await transport.request(  # type: ignore[no-untyped-call]
            method, configuration.host + target, headers=headers, body=body, _request_timeout=timeout
        )
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _connected(self) -> tuple[Configuration, RESTClientObject]:
        if self._configuration is None or self._transport is None:
            self._configuration = await load_configuration()
            # Streams keep theirs, of each kind in each namespace; how many requests there are at a time, others bound.
            self._configuration.connection_pool_maxsize = NO_LIMIT
            self._transport = RESTClientObject(self._configuration)
        return self._configuration, self._transport

    async def _reload_credentials(self) -> None:
        """Take the token that may have taken the place of the expired one; certificates stay."""
        await asyncio.sleep(1)
        self._configuration = await load_configuration()


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """Lines of any length, which aiohttp's own do not have: an object of 1 MB is one of 6 MB where `<` is escaped."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


def _selector(terms: Mapping[str, str] | None) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted((terms or {}).items()))


def _error(request: str, status: int, answer: Raw) -> ApiError:
    """What the server has said, as a Status object."""
    causes = (answer.get("details") or {}).get("causes") or ()
    fields = [cause["field"] for cause in causes if cause.get("field")]
    return ApiError(request, status, answer.get("reason", ""), answer.get("message", ""), fields)


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "")
    return min(float(text), LONGEST_PAUSE) if text.isdecimal() else 1.0


def _parse(text: bytes) -> Raw:
    """The answer's JSON object; what is none (from a proxy, say) as the message of one."""
    try:
        answer = orjson.loads(text)
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {"reason": "", "message": text[:300].decode(errors="replace")}
