"""The client over HTTP, against a server whose responses the test defines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

from tunesmith_operator import kubernetes_client
from tunesmith_operator.client import ApiError
from tunesmith_operator.kubernetes_client import LONGEST_PAUSE, KubernetesClient
from tunesmith_operator.rate_limit import RateLimiter

SILENT = "77"
"""A watch since this version gets no response."""
BUSY = web.HTTPTooManyRequests.status_code


class Limiter(RateLimiter):
    """Records its calls, and does not wait."""

    def __init__(self) -> None:
        self.asked, self.pauses = 0, list[float]()

    async def acquire(self) -> None:
        self.asked += 1

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


@dataclass
class Scene:
    """A client and the responses of its server: (status, headers, body), then 200."""

    client: KubernetesClient
    limiter: Limiter
    answers: list[tuple[int, dict[str, str], Any]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)


@pytest_asyncio.fixture(loop_scope="function")
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    limiter = Limiter()
    scene = Scene(KubernetesClient(limiter), limiter)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.query.get("resourceVersion") == SILENT:
            await asyncio.sleep(60)
        scene.requests.append((request.method, request.path))
        status, headers, body = scene.answers.pop(0) if scene.answers else (200, {}, {"kind": "Any"})
        if isinstance(body, bytes):
            return web.Response(body=body, status=status, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(application) as server:

        async def configuration() -> Configuration:
            return Configuration(host=str(server.make_url("")).rstrip("/"))

        monkeypatch.setattr(kubernetes_client, "load_configuration", configuration)
        yield scene
        await scene.client.close()


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("3", 3.0), ("86400", LONGEST_PAUSE), ("9" * 400, LONGEST_PAUSE), ("soon", 1.0), (None, 1.0)],
)
async def test_retry_after_is_respected_up_to_a_bound(scene: Scene, retry_after: str | None, seconds: float) -> None:
    scene.answers = [(BUSY, {"Retry-After": retry_after} if retry_after else {}, {})]
    assert await scene.client.get("Job", "team", "a") == {"kind": "Any"}
    assert scene.limiter.pauses == [seconds]
    assert scene.limiter.asked == 2


async def test_lease_requests_bypass_the_rate_limiter(scene: Scene) -> None:
    scene.answers = [(BUSY, {"Retry-After": "30"}, {"message": "busy"})]
    with pytest.raises(ApiError, match="busy"):
        await scene.client.get("Lease", "system", "tunesmith-operator")
    await scene.client.replace({"kind": "Lease", "metadata": {"namespace": "system", "name": "tunesmith-operator"}})
    assert (scene.limiter.asked, scene.limiter.pauses) == (0, [])
    assert [method for method, _ in scene.requests] == ["GET", "PUT"]


async def test_a_namespace_named_leases_does_not_bypass_the_rate_limiter(scene: Scene) -> None:
    await scene.client.get("Pod", "leases", "leases")
    assert scene.limiter.asked == 1


@pytest.mark.parametrize(("uid", "requests"), [("u1", 2), (None, 1)])
async def test_a_clashing_list_item_is_replaced_in_an_observed_object_only(
    scene: Scene, uid: str | None, requests: int
) -> None:
    scene.answers = [(422, {}, {"reason": "Invalid", "message": "Duplicate value: http"})]
    service = {"kind": "Service", "metadata": {"namespace": "team", "name": "support"}}
    if uid:
        assert await scene.client.apply(service, uid) == {"kind": "Any"}
    else:
        with pytest.raises(ApiError, match="Duplicate value"):
            await scene.client.apply(service, uid)
    assert scene.requests == [("PATCH", "/api/v1/namespaces/team/services/support")] * requests


async def test_an_error_has_the_paths_of_the_invalid_fields(scene: Scene) -> None:
    causes = [{"reason": "FieldValueTooLong", "field": "status.artifacts[0].uri"}, {"reason": "Other"}]
    scene.answers = [(422, {}, {"reason": "Invalid", "message": "too long", "details": {"causes": causes}})]
    resource = {"kind": "EvalJob", "metadata": {"namespace": "team", "name": "a", "resourceVersion": "1"}}
    with pytest.raises(ApiError) as caught:
        await scene.client.write_status(resource, {})
    assert (caught.value.invalid, caught.value.fields) == (True, ("status.artifacts[0].uri",))


async def watched(scene: Scene, *lines: bytes, status: int = 200) -> list[tuple[str, str]]:
    scene.answers.append((status, {}, b"".join(lines)))
    events = scene.client.watch("Pod", None, {"a": "b"}, "5")
    return [(event_type, thing["metadata"]["resourceVersion"]) async for event_type, thing in events]


ADDED = b'{"type": "ADDED", "object": {"metadata": {"resourceVersion": "6"}, "spec": "%s"}}\n' % (
    b"\\u003c" * 1_500_000
)
BOOKMARK = b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}\n'
EXPIRED = b'{"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}\n'


async def test_a_watch_delivers_objects_of_any_size(scene: Scene) -> None:
    assert await watched(scene, ADDED, BOOKMARK) == [("ADDED", "6"), ("BOOKMARK", "9")]


@pytest.mark.parametrize(
    ("lines", "status", "expected"),
    [((EXPIRED,), 200, 410), ((b'{"reason": "Expired"}',), 410, 410), ((BOOKMARK, ADDED[:99]), 200, 0)],
    ids=["an error event", "an error answer", "a line that was cut off"],
)
async def test_a_failed_watch_raises_the_status_of_its_error(
    scene: Scene, lines: tuple[bytes, ...], status: int, expected: int
) -> None:
    with pytest.raises(ApiError) as caught:
        await watched(scene, *lines, status=status)
    assert caught.value.status == expected


async def test_open_streams_do_not_exhaust_the_connections(scene: Scene) -> None:
    streams = [
        asyncio.create_task(anext(scene.client.watch("Pod", f"team-{number}", {}, SILENT))) for number in range(150)
    ]
    await asyncio.sleep(0.5)
    async with asyncio.timeout(10):
        assert await scene.client.get("Job", "team", "a") == {"kind": "Any"}
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)


async def test_a_list_is_read_page_by_page_to_its_end(scene: Scene) -> None:
    scene.answers = [
        (200, {}, {"items": [1, 2], "metadata": {"resourceVersion": "5", "continue": "token"}}),
        (200, {}, {"items": [3], "metadata": {"resourceVersion": "5"}}),
    ] * 2
    assert [item async for item in scene.client.each("Pod", None, {})] == [1, 2, 3]
    assert await scene.client.list("Pod", None, limit=1) == [1]


async def test_the_version_of_the_watch_cache_is_read_without_objects(scene: Scene) -> None:
    scene.answers = [(200, {}, {"items": [], "metadata": {"resourceVersion": "5"}})]
    assert await scene.client.version("Pod", None) == "5"


@pytest.mark.parametrize("order", [["v1beta1", "v1beta2"], ["v1beta2", "v1beta1"]])
async def test_the_versions_of_an_api_group_begin_with_the_preferred_one(scene: Scene, order: list[str]) -> None:
    versions = [{"groupVersion": f"kueue.x-k8s.io/{version}", "version": version} for version in order]
    scene.answers = [(200, {}, {"kind": "APIGroup", "versions": versions, "preferredVersion": {"version": "v1beta2"}})]
    assert await scene.client.served_versions("kueue.x-k8s.io") == ("v1beta2", "v1beta1")
    assert scene.requests == [("GET", "/apis/kueue.x-k8s.io")]


async def test_an_api_group_that_is_not_served_has_no_versions(scene: Scene) -> None:
    scene.answers = [(404, {}, {"reason": "NotFound", "message": "no such group"}), (500, {}, {})]
    assert await scene.client.served_versions("kueue.x-k8s.io") == ()
    with pytest.raises(ApiError):
        await scene.client.served_versions("kueue.x-k8s.io")


async def test_a_list_in_another_version_of_the_group_has_that_version_in_its_path(scene: Scene) -> None:
    scene.answers = [(200, {}, {"items": [], "metadata": {}})]
    assert await scene.client.list("Workload", "team", cached=True, version="v1beta1") == []
    assert scene.requests == [("GET", "/apis/kueue.x-k8s.io/v1beta1/namespaces/team/workloads")]
