"""`Client` over HTTP, with the credentials and the transport of kubernetes.aio and without its typed models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from tunesmith_operator import metrics
from tunesmith_operator.client import FIELD_MANAGER, RESOURCES, ApiError
from tunesmith_operator.connection import USER_AGENT, authorization, load_configuration
from tunesmith_operator.plan.names import UID_LABEL
from tunesmith_operator.plan.types import Raw
from tunesmith_operator.rate_limit import RateLimiter

TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=100)
"""The server sends a bookmark each minute."""
TRIES = 8
"""How often a request is sent while the response is 429, or 401 with a token that may have been renewed. An Event whose
last attempt fails is lost."""
PAGE = 250
NOBODY = f"{UID_LABEL}=nobody"
"""Selects nothing."""
NO_LIMIT = 0
"""On connections."""
LONGEST_PAUSE = 30.0
"""Upper bound of Retry-After, in seconds: a proxy that asks for more would stop the operator."""
LEASES = f"/apis/{RESOURCES['Lease'].api_version}/"
"""Requests below this path bypass the rate limiter and are sent once: the leader has its own schedule, and a Lease that is
renewed late is lost."""

UNREACHABLE = (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError)

JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{JSON}"
"""Writes return metadata only: the operator needs the new resourceVersion and nothing else."""
APPLY_PATCH = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


class KubernetesClient:
    """`tunesmith_operator.client.Client` on a cluster.

    `may_write` is called right before each write is sent and raises if this process must not write any more.
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
        version: str | None = None,
    ) -> list[Raw]:
        resource = RESOURCES[kind].at_version(version) if version else RESOURCES[kind]
        path = resource.path(namespace)
        query = {"labelSelector": _selector(labels), "fieldSelector": _selector(fields)}
        if cached:
            answer = await self._request("GET", path, query=query | {"resourceVersion": since or "0"})
            return list(answer["items"])
        items: list[Raw] = []
        async for item in self._pages(path, query | {"limit": str(limit or PAGE)}):
            items.append(item)
            if len(items) == limit:
                break
        return items

    def each(self, kind: str, namespace: str | None, labels: Mapping[str, str]) -> AsyncGenerator[Raw, None]:
        return self._pages(RESOURCES[kind].path(namespace), {"labelSelector": _selector(labels), "limit": str(PAGE)})

    async def _pages(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[Raw, None]:
        token = ""
        while True:
            answer = await self._request("GET", path, query={**query, "continue": token})
            for item in answer["items"]:
                yield item
            token = answer["metadata"].get("continue") or ""
            if not token:
                return

    async def version(self, kind: str, namespace: str | None) -> str:
        query = {"labelSelector": NOBODY, "resourceVersion": "0"}
        answer = await self._request("GET", RESOURCES[kind].path(namespace), query=query)
        return str(answer["metadata"]["resourceVersion"])

    async def served_versions(self, group: str) -> Sequence[str]:
        try:
            answer = await self._request("GET", f"/apis/{group}")
        except ApiError as error:
            if error.status == 404:
                return ()
            raise
        preferred = answer["preferredVersion"]["version"]
        others = (entry["version"] for entry in answer["versions"])
        return (preferred, *(version for version in others if version != preferred))

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
        except (*UNREACHABLE, ValueError) as error:  # ValueError: a truncated line
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
        # Without force, the server rejects the apply if another manager has created the object meanwhile.
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if uid else "false"}
        body = {**manifest, "metadata": {**metadata, "uid": uid}} if uid else manifest
        try:
            return await self._request("PATCH", path, body=body, query=query, content_type=APPLY_PATCH)
        except ApiError as error:
            if not (uid and error.invalid):
                raise
        # Another manager's list items may clash with ours, for example two ports of one name. A merge patch replaces the list.
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
            # Each kind's stream in each namespace keeps a connection; workers and the rate limiter bound the requests.
            self._configuration.connection_pool_maxsize = NO_LIMIT
            self._transport = RESTClientObject(self._configuration)
        return self._configuration, self._transport

    async def _reload_credentials(self) -> None:
        """Read the token again, which may have been renewed. The certificates are not read again."""
        await asyncio.sleep(1)
        self._configuration = await load_configuration()


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """Lines of any length; aiohttp's own reader limits them. An object of 1 MB takes up to 6 MB with escapes such as `<`."""
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
    """The error of a response, whose body is a meta/v1 Status."""
    causes = (answer.get("details") or {}).get("causes") or ()
    fields = [cause["field"] for cause in causes if cause.get("field")]
    return ApiError(request, status, answer.get("reason", ""), answer.get("message", ""), fields)


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "")
    return min(float(text), LONGEST_PAUSE) if text.isdecimal() else 1.0


def _parse(text: bytes) -> Raw:
    """The JSON object of a response. Other text, for example a proxy's error page, becomes the message of a Status."""
    try:
        answer = orjson.loads(text)
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {"reason": "", "message": text[:300].decode(errors="replace")}
