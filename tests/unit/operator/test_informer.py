"""The stream of a kind, against an API server that says what a test tells it to."""

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
Said = tuple[str, Raw] | ApiError


class Server(SimulatedCluster):
    """Each watch says one of `says`, then ends, or fails where it ends with an ApiError; then it stays silent."""

    def __init__(self, says: list[list[Said]]) -> None:
        super().__init__()
        self.says = says
        self.asked: list[str] = []

    async def version(self, *_: Any) -> str:
        return "7"

    async def each(self, *_: Any) -> AsyncGenerator[Raw, None]:
        for name in "ab":
            yield thing(name, 1)

    async def watch(self, kind: str, namespace: Any, labels: Any, since: str) -> AsyncGenerator[tuple[str, Raw], None]:
        self.asked.append(since)
        if not self.says:
            await asyncio.Event().wait()
        for one in self.says.pop(0):
            if isinstance(one, ApiError):
                raise one
            yield one


@dataclass
class Audience:
    heard: list[tuple[str | None, str]] = field(default_factory=list)
    begun: list[str | None] = field(default_factory=list)

    def on_child_event(self, event_type: str | None, kind: str, child: Raw) -> None:
        self.heard.append((event_type, child["metadata"]["name"]))

    def on_stream_start(self, kind: str, namespace: str | None, version: str | None) -> None:
        self.begun.append(version)


def thing(name: str, version: int) -> Raw:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def listen(server: Server, kind: str = "Pod", seconds: float = 3600) -> Audience:
    audience = Audience()

    async def main() -> None:
        async with asyncio.timeout(seconds):
            await inform(server, kind, None, audience)

    try:
        run(main())
    except TimeoutError:
        return audience
    raise AssertionError("a stream has no end")


def test_a_stream_continues_from_its_last_event_or_bookmark() -> None:
    server = Server([[("ADDED", thing("a", 8)), ("BOOKMARK", {"metadata": {"resourceVersion": "20"}})], [AWAY]])
    audience = listen(server)
    assert server.asked == ["7", "20", "20"]
    assert audience.heard == [("ADDED", "a")]
    assert audience.begun == ["7"]


def test_an_expired_stream_starts_again_and_announces_the_gap() -> None:
    audience = listen(Server([[("ADDED", thing("a", 8)), GONE], [("DELETED", thing("a", 9))]]))
    assert audience.begun == ["7", None, "7"]
    assert audience.heard == [("ADDED", "a"), ("DELETED", "a")]


def test_existing_jobs_are_delivered_and_of_pods_only_events() -> None:
    assert listen(Server([]), "Job").heard == [(None, "a"), (None, "b")]
    assert listen(Server([]), "Pod").heard == []


def test_a_failed_first_list_is_repeated() -> None:
    class Busy(Server):
        def each(self, *arguments: Any) -> AsyncGenerator[Raw, None]:
            async def failing() -> AsyncGenerator[Raw, None]:
                raise AWAY
                yield

            self.each = super().each  # type: ignore[method-assign]
            return failing()

    assert listen(Busy([]), "Job").heard == [(None, "a"), (None, "b")]


def test_a_stream_that_cannot_be_opened_for_minutes_ends_the_process() -> None:
    with pytest.raises(ApiError):
        listen(Server([[AWAY]] * 100))


def test_failures_that_are_not_in_a_row_do_not_add_up() -> None:
    server = Server([[("ADDED", thing("a", 8)), AWAY]] * 100)
    assert len(listen(server).heard) == 100


def test_silent_streams_that_a_proxy_cuts_are_no_failure() -> None:
    class Silent(Server):
        async def watch(self, *_: Any) -> AsyncGenerator[tuple[str, Raw], None]:
            await asyncio.sleep(60)
            raise AWAY
            yield

    assert listen(Silent([]), seconds=24 * 3600).begun == ["7"]
