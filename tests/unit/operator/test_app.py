"""The start and the stop of the operator."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest

from tests.unit.operator.simulated_cluster import SimulatedCluster
from tests.unit.operator.virtual_time import run
from tunesmith_operator import app
from tunesmith_operator.client import ApiError
from tunesmith_operator.controller import Controller, Settings
from tunesmith_operator.health import Health
from tunesmith_operator.leader import Leader
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.types import Raw
from tunesmith_operator.progress_receiver import ProgressReports

CONFIG = OperatorConfig.model_validate({"images": {"runtime": "r"}, "store": {"uri": "s3://store"}})


@pytest.mark.parametrize("missing", ["FineTuneJob", "Service"])
def test_a_stop_before_every_kind_can_be_listed_exits_with_0_and_takes_no_lease(missing: str) -> None:
    async def main() -> int:
        client.errors[("list", missing)] = ApiError("GET", 404, "NotFound", "no such kind")
        controller = Controller(client, KINDS, ProgressReports(), Settings(CONFIG, lambda uid, name: "token", "pod-1"))
        clock = asyncio.get_running_loop().time
        leader = Leader(client, CONFIG.leader_election, "system", "pod-1_10.0.0.1:8082", clock)
        stop = asyncio.create_task(asyncio.sleep(60))
        return await app._lead(CONFIG, client, controller, leader, Health(controller.queue, clock), stop)

    client = SimulatedCluster()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run(main()) == 0
        gc.collect()
    assert not [warning for warning in caught if "never awaited" in str(warning.message)]
    assert not [call for call in client.calls if "Lease" in call]


def test_a_stop_between_the_lease_and_the_handlers_of_kopf_exits_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(*_: Any) -> None:
        await asyncio.sleep(float("inf"))

    async def main() -> int:
        controller = Controller(client, KINDS, ProgressReports(), Settings(CONFIG, lambda uid, name: "token", "pod-1"))
        clock = asyncio.get_running_loop().time
        leader = Leader(client, CONFIG.leader_election, "system", "pod-1_10.0.0.1:8082", clock)
        stop = asyncio.create_task(asyncio.sleep(60))
        led = app._lead(CONFIG, client, controller, leader, Health(controller.queue, clock), stop)
        code = await asyncio.wait_for(led, 600)
        assert leader.is_leader
        return code

    client = SimulatedCluster()
    monkeypatch.setattr(app, "watch", sleep)
    monkeypatch.setattr(app, "inform", sleep)
    assert run(main()) == 0


class Namespaces(SimulatedCluster):
    """Fails the lists of some namespaces with an ApiError."""

    def __init__(self, **problems: ApiError) -> None:
        super().__init__()
        self.problems = problems

    async def list(self, kind: str, namespace: str | None, *args: Any, **kwargs: Any) -> list[Raw]:
        if namespace in self.problems:
            raise self.problems[namespace]
        return await super().list(kind, namespace, *args, **kwargs)


GONE = ApiError("GET", 403, "Forbidden", "no Role in this namespace")
AWAY = ApiError("GET", 0, "Unreachable", "no answer")


def test_a_deleted_namespace_does_not_block_the_others() -> None:
    assert run(app.wait_for_api(Namespaces(b=GONE), ("a", "b", "c"))) == ("a", "c")


def test_an_unreachable_api_server_excludes_no_namespace() -> None:
    client = Namespaces(a=AWAY, b=AWAY)

    async def main() -> tuple[tuple[str, ...], float]:
        loop = asyncio.get_running_loop()
        loop.call_later(30, client.problems.pop, "a")
        loop.call_later(60, client.problems.pop, "b")
        return await app.wait_for_api(client, ("a", "b")), loop.time()

    found, seconds = run(main())
    assert found == ("a", "b")
    assert seconds >= 60


@pytest.mark.parametrize("namespaces", [("a", "b"), ()])
def test_the_operator_waits_until_some_namespace_can_be_listed(namespaces: tuple[str, ...]) -> None:
    client = Namespaces(a=GONE, b=GONE)
    client.problems |= {} if namespaces else {None: GONE}  # type: ignore[dict-item]

    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(30, client.problems.clear)
        assert await app.wait_for_api(client, namespaces) == namespaces
        return loop.time()

    assert run(main()) >= 30


def test_an_excluded_namespace_that_can_be_listed_again_is_noticed() -> None:
    client = Namespaces(b=GONE, c=GONE)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(600, client.problems.pop, "c")
        await app.wait_for_excluded(client, ["b", "c"])
        return loop.time()

    assert 600 <= run(main()) <= 600 + 2 * app.EXCLUDED_RETRY_SECONDS


def test_without_excluded_namespaces_the_task_never_ends() -> None:
    async def main() -> bool:
        task = asyncio.create_task(app.wait_for_excluded(Namespaces(), []))
        await asyncio.sleep(10_000)
        return task.done()

    assert run(main()) is False
