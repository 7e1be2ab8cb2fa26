"""The watch of a kind, against an API server whose events the test defines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.unit.operator.simulated_cluster import SimulatedCluster
from tests.unit.operator.virtual_time import run
from tunesmith_operator.client import ApiError
from tunesmith_operator.informer import inform
from tunesmith_operator.plan.types import Raw

GONE = ApiError("WATCH", 410, "Expired", "too old resource version")
AWAY = ApiError("WATCH", 0, "Unreachable", "refused")
Step = tuple[str, Raw] | ApiError


class Server(SimulatedCluster):
    """Each watch delivers the next of `watches` and then ends or raises its ApiError. After the last, it is silent."""

    def __init__(self, watches: list[list[Step]]) -> None:
        super().__init__()
        self.watches = watches
        self.asked: list[str] = []

    async def version(self, *_: Any) -> str:
        return "7"

    async def each(self, *_: Any) -> AsyncGenerator[Raw, None]:
        for name in "ab":
            yield pod(name, 1)

    async def watch(self, kind: str, namespace: Any, labels: Any, since: str) -> AsyncGenerator[tuple[str, Raw], None]:
        self.asked.append(since)
        if not self.watches:
            await asyncio.Event().wait()
        for step in self.watches.pop(0):
            if isinstance(step, ApiError):
                raise step
            yield step


@dataclass
class Recorder:
    events: list[tuple[str | None, str]] = field(default_factory=list)
    starts: list[str | None] = field(default_factory=list)

    def on_child_event(self, event_type: str | None, kind: str, child: Raw) -> None:
        self.events.append((event_type, child["metadata"]["name"]))

    def on_stream_start(self, kind: str, namespace: str | None, version: str | None) -> None:
        self.starts.append(version)


def pod(name: str, version: int) -> Raw:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def watch_for(server: Server, kind: str = "Pod", seconds: float = 3600) -> Recorder:
    recorder = Recorder()

    async def main() -> None:
        async with asyncio.timeout(seconds):
            await inform(server, kind, None, recorder)

    try:
        run(main())
    except TimeoutError:
        return recorder
    raise AssertionError("a stream must not end")


def test_a_stream_continues_from_its_last_event_or_bookmark() -> None:
    server = Server([[("ADDED", pod("a", 8)), ("BOOKMARK", {"metadata": {"resourceVersion": "20"}})], [AWAY]])
    recorder = watch_for(server)
    assert server.asked == ["7", "20", "20"]
    assert recorder.events == [("ADDED", "a")]
    assert recorder.starts == ["7"]


def test_an_expired_stream_starts_again_and_announces_the_gap() -> None:
    recorder = watch_for(Server([[("ADDED", pod("a", 8)), GONE], [("DELETED", pod("a", 9))]]))
    assert recorder.starts == ["7", None, "7"]
    assert recorder.events == [("ADDED", "a"), ("DELETED", "a")]


def test_existing_jobs_are_delivered_and_of_pods_only_events() -> None:
    assert watch_for(Server([]), "Job").events == [(None, "a"), (None, "b")]
    assert watch_for(Server([]), "Pod").events == []


def test_a_failed_first_list_is_repeated() -> None:
    class Busy(Server):
        def each(self, *arguments: Any) -> AsyncGenerator[Raw, None]:
            async def failing() -> AsyncGenerator[Raw, None]:
                raise AWAY
                yield

            self.each = super().each  # type: ignore[method-assign]
            return failing()

    assert watch_for(Busy([]), "Job").events == [(None, "a"), (None, "b")]


def test_a_stream_that_cannot_be_opened_for_minutes_ends_the_process() -> None:
    with pytest.raises(ApiError):
        watch_for(Server([[AWAY]] * 100))


def test_failures_that_are_not_in_a_row_do_not_add_up() -> None:
    server = Server([[("ADDED", pod("a", 8)), AWAY]] * 100)
    assert len(watch_for(server).events) == 100


def test_silent_streams_that_a_proxy_cuts_are_no_failure() -> None:
    class Silent(Server):
        async def watch(self, *_: Any) -> AsyncGenerator[tuple[str, Raw], None]:
            await asyncio.sleep(60)
            raise AWAY
            yield

    assert watch_for(Silent([]), seconds=24 * 3600).starts == ["7"]
