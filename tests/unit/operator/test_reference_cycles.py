"""Cycles of references under the real controller and plans, on a simulated cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import permutations

import pytest

from tests.unit.operator.plan.world import CONFIG, eval_job, fine_tune_job, inference_service, token, tuned, with_spec
from tests.unit.operator.simulated_cluster import SimulatedCluster
from tunesmith_operator.controller import Controller, Settings
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.types import Raw
from tunesmith_operator.progress_receiver import ProgressReports
from tunesmith_operator.resources import ResourceKey, key_of


class Namespace:
    """An operator that receives the event of each write immediately."""

    def __init__(self) -> None:
        self.client = SimulatedCluster()
        self.controller = Controller(self.client, KINDS, ProgressReports(), Settings(CONFIG, token, "pod-1"))

    async def put(self, thing: Raw, event: str = "ADDED") -> None:
        """Create or change a resource, and reconcile until the queue is empty."""
        self.controller.on_resource_event(event, self.client.put(thing))
        await self.work()

    async def remove(self, thing: Raw) -> None:
        """Delete a resource, and reconcile until the queue is empty."""
        gone = self.client.remove(key_of(thing))
        assert gone is not None
        self.controller.on_resource_event("DELETED", gone)
        await self.work()

    async def work(self) -> None:
        """Reconcile until the queue is empty."""
        for _ in range(200):
            if not len(self.controller.queue):
                return
            key = await self.controller.queue.get()
            await self.controller.reconcile(key)
            self.controller.queue.done(key)
            if (written := self.client.objects.get(key)) is not None:
                self.controller.on_resource_event("MODIFIED", written)
        raise AssertionError("it does not come to rest")

    def status(self, thing: Raw) -> Raw:
        status: Raw = self.client.objects[key_of(thing)].get("status") or {}
        return status

    def stalled(self, thing: Raw) -> bool:
        conditions = self.status(thing)["conditions"]
        return any(condition["type"] == "Stalled" and condition["status"] == "True" for condition in conditions)


def tune(name: str, base: str) -> Raw:
    return fine_tune_job(name, model={"fineTuneJob": {"name": base}})


RINGS: dict[str, tuple[Raw, ...]] = {
    "itself": (tune("a", "a"),),
    "each other": (tune("a", "b"), tune("b", "a")),
    "three": (tune("a", "b"), tune("b", "c"), tune("c", "a")),
    "promoted by its own evaluation": (
        inference_service("s", promotion={"evalJobs": [{"name": "e"}]}),
        eval_job("e", model={"inferenceService": {"name": "s"}}),
    ),
    "a baseline": (
        inference_service("s", promotion={"evalJobs": [{"name": "e"}]}),
        eval_job("e", baseline={"inferenceService": {"name": "s"}}),
    ),
    "an adapter": (
        inference_service("s", adapters=[{"name": "x", "fineTuneJob": {"name": "a"}}]),
        fine_tune_job("a", model={"inferenceService": {"name": "s"}}),
    ),
    "all kinds": (
        inference_service("s", promotion={"evalJobs": [{"name": "e"}]}),
        eval_job("e", model={"fineTuneJob": {"name": "a"}}),
        tune("a", "b"),
        fine_tune_job("b", model={"inferenceService": {"name": "s"}}),
    ),
    "one name in three kinds": (
        inference_service("x", promotion={"evalJobs": [{"name": "x"}]}),
        eval_job("x", model={"fineTuneJob": {"name": "x"}}),
        fine_tune_job("x", model={"inferenceService": {"name": "x"}}),
    ),
}


def orders() -> Iterator[tuple[str, tuple[Raw, ...]]]:
    for title, members in RINGS.items():
        yield from ((title, order) for order in list(permutations(members))[:8])


async def filled(members: Iterable[Raw]) -> Namespace:
    namespace = Namespace()
    for member in members:
        await namespace.put(member)
    return namespace


@pytest.mark.parametrize(("title", "members"), list(orders()))
def test_every_member_of_a_cycle_reports_it_in_any_order_of_creation(title: str, members: tuple[Raw, ...]) -> None:
    async def main() -> None:
        namespace = await filled(members)
        for member in members:
            status, own = namespace.status(member), f"{member['kind']}/{member['metadata']['name']}"
            assert status["phase"] == "Failed", status
            assert status["reason"] == "BadSpec"
            assert namespace.stalled(member)
            cycle = status["message"].removeprefix("a reference cycle: ").partition(": ")[0].split(" -> ")
            assert cycle[0] == cycle[-1] == own
            assert len(cycle) == len(members) + 1

    asyncio.run(main())


@pytest.mark.parametrize(("title", "members"), list(orders()))
def test_breaking_a_cycle_unblocks_its_other_members(title: str, members: tuple[Raw, ...]) -> None:
    async def main() -> None:
        namespace = await filled(members)
        last = members[-1]
        await namespace.remove(last)
        again = {**last, "metadata": {**last["metadata"], "uid": "another"}}
        if last["kind"] == "FineTuneJob":
            done = tuned(last["metadata"]["name"])
            again = {**done, "metadata": {**done["metadata"], "uid": "another"}}
        else:
            again["spec"] = {**last["spec"], "model": {"uri": "s3://models/a"}}
            again["spec"].pop("promotion", None)
            again["spec"].pop("adapters", None)
            again["spec"].pop("baseline", None)
        await namespace.put(again)
        for member in members:
            assert "cycle" not in namespace.status(member).get("message", ""), namespace.status(member)
            assert not namespace.stalled(member), namespace.status(member)

    asyncio.run(main())


def test_an_edit_of_a_service_breaks_a_cycle() -> None:
    service, evaluation = RINGS["promoted by its own evaluation"]

    async def main() -> None:
        namespace = await filled((service, evaluation))
        there = namespace.client.objects[ResourceKey("InferenceService", "team", "s")]
        changed = with_spec(there)
        del changed["spec"]["promotion"]
        await namespace.put(changed, "MODIFIED")
        assert namespace.status(service)["phase"] == "Pending"
        assert namespace.status(evaluation)["phase"] == "Waiting"
        assert not namespace.stalled(evaluation)

    asyncio.run(main())


def test_a_resource_that_waits_for_a_member_of_a_cycle_reports_the_cycle() -> None:
    first, second = RINGS["each other"]
    outside = tune("c", "a")
    further = eval_job("e", model={"fineTuneJob": {"name": "c"}})

    async def main() -> None:
        namespace = await filled((further, outside, first, second))
        for thing in (outside, further):
            status = namespace.status(thing)
            assert status["phase"] == "Waiting"
            assert "a reference cycle: FineTuneJob/a -> FineTuneJob/b -> FineTuneJob/a" in status["message"]
            assert namespace.stalled(thing)
        await namespace.remove(second)
        assert not namespace.stalled(outside)
        assert not namespace.stalled(further)

    asyncio.run(main())


def test_evaluating_a_served_model_that_gates_the_next_is_no_cycle() -> None:
    service, evaluation = RINGS["promoted by its own evaluation"]
    serving = {"phase": "Ready", "model": {"uri": "s3://models/a", "digest": "d"}, "version": "1"}

    async def main() -> None:
        namespace = await filled(({**service, "status": serving}, evaluation))
        assert namespace.status(evaluation)["phase"] != "Failed"
        assert namespace.status(service)["phase"] != "Failed"

    asyncio.run(main())


def test_detecting_a_cycle_costs_no_extra_requests() -> None:
    members = RINGS["three"]

    async def main() -> None:
        namespace = await filled(members)
        namespace.client.calls.clear()
        await namespace.controller.reconcile(key_of(members[0]))
        read = [name for verb, kind, name in namespace.client.calls if verb == "get" and kind == "FineTuneJob"]
        assert set(read) <= {"a", "b"}
        assert not namespace.client.writes()

    asyncio.run(main())
