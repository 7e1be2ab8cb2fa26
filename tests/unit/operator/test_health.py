from __future__ import annotations

import asyncio

from aiohttp.test_utils import TestClient, TestServer

from tunesmith_api.release import VERSION
from tunesmith_operator.health import LONGEST_RECONCILE_SECONDS, Health
from tunesmith_operator.queue import WorkQueue


async def test_livez_fails_for_a_dead_worker_and_a_stalled_event_loop_only() -> None:
    clock = [0.0]
    queue: WorkQueue[str] = WorkQueue()
    health = Health(queue, lambda: clock[0])
    async with TestClient(TestServer(health.application())) as http:

        async def status(path: str) -> int:
            async with http.get(path) as answer:
                return answer.status

        assert await status("/livez") == 200
        assert await status("/readyz") == 503
        health.ready = True
        assert await status("/readyz") == 200
        clock[0] = 100.0
        assert await status("/livez") == 500
        clock[0] = 1.0
        assert await status("/livez") == 200
        ended = asyncio.create_task(asyncio.sleep(0), name="worker 3")
        await ended
        health.tasks = [ended]
        async with http.get("/livez") as answer:
            assert (answer.status, await answer.text()) == (500, "worker 3 has ended\n")


async def test_metrics_are_exposed_for_prometheus() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    async with TestClient(TestServer(Health(queue, lambda: 0.0).application())) as http, http.get("/metrics") as answer:
        text = await answer.text()
    assert "tunesmith_queue_depth 1.0" in text
    assert f'version="{VERSION}"' in text


async def test_livez_fails_for_a_worker_that_has_had_one_resource_for_too_long() -> None:
    class Stuck(WorkQueue[str]):
        def longest_processing_seconds(self) -> float:
            return LONGEST_RECONCILE_SECONDS + 1

    assert Health(Stuck(), lambda: 0.0).problems() == ["a worker has been with one resource for 601 s"]
    assert Health(WorkQueue[str](), lambda: 0.0).problems() == []
