from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.simulated_cluster import SimulatedCluster
from tests.unit.operator.virtual_time import run
from tunesmith_operator import metrics
from tunesmith_operator.client import ApiError
from tunesmith_operator.leader import Leader, LeaseLost
from tunesmith_operator.plan.config import LeaderElection
from tunesmith_operator.plan.types import Raw

SETTINGS = LeaderElection(lease_seconds=15, renew_seconds=10, retry_seconds=2)
AWAY = {(verb, "Lease"): ApiError(verb, 0, "Unreachable", "connection refused") for verb in ("get", "replace")}


def replica(client: SimulatedCluster, name: str, settings: LeaderElection = SETTINGS) -> Leader:
    return Leader(client, settings, "system", f"{name}_10.0.0.1:8082", asyncio.get_running_loop().time)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_one_replica_leads_and_the_others_know_its_address() -> None:
    async def main() -> None:
        client = SimulatedCluster()
        first, second = replica(client, "a"), replica(client, "b")
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        keeping = asyncio.create_task(first.keep())
        await asyncio.sleep(600)
        assert first.is_leader
        assert not second.is_leader
        assert second.holder_url() == "http://10.0.0.1:8082"
        assert first.holder_url() is None
        waiting.cancel()
        keeping.cancel()

    run(main())


def test_a_standby_takes_over_when_the_lease_of_a_dead_leader_expires() -> None:
    async def main() -> float:
        client = SimulatedCluster()
        await replica(client, "a").acquire()
        second = replica(client, "b")
        await second.acquire()
        return now()

    assert 15 <= run(main()) <= 15 + 2 * 2.4


def test_a_standby_takes_over_promptly_after_a_release() -> None:
    async def main() -> float:
        client = SimulatedCluster()
        first, second = replica(client, "a"), replica(client, "b")
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(5)
        await first.release()
        await waiting
        return now() - 5

    assert run(main()) <= 2.4


@pytest.mark.parametrize("outage", [1, 3, 6])
def test_a_short_outage_of_the_api_server_does_not_cost_the_lease(outage: float) -> None:
    async def main() -> bool:
        client = SimulatedCluster()
        leader = replica(client, "a")
        await leader.acquire()
        keeping = asyncio.create_task(leader.keep())
        await asyncio.sleep(5)
        client.errors = dict(AWAY)
        await asyncio.sleep(outage)
        client.errors.clear()
        await asyncio.sleep(60)
        alive = not keeping.done()
        leader.may_write()
        keeping.cancel()
        return alive

    assert run(main())


def test_a_leader_that_cannot_renew_ends_before_another_may_lead() -> None:
    async def main() -> float:
        client = SimulatedCluster()
        leader = replica(client, "a")
        await leader.acquire()
        client.errors = dict(AWAY)
        with pytest.raises(LeaseLost):
            await leader.keep()
        return now()

    assert run(main()) <= SETTINGS.renew_seconds + 0.1 < SETTINGS.lease_seconds


def test_a_leader_ends_when_another_holds_its_lease() -> None:
    async def main() -> None:
        client = SimulatedCluster()
        leader = replica(client, "a")
        await leader.acquire()
        [lease] = client.objects.values()
        client.put({**lease, "spec": {**lease["spec"], "holderIdentity": "b_10.0.0.2:8082"}})
        with pytest.raises(LeaseLost, match="b_10"):
            await leader.keep()

    run(main())


@pytest.mark.parametrize("latency", [0.0, 1.0, 5.0])
def test_a_slow_api_server_does_not_cost_the_lease(latency: float) -> None:
    class Slow(SimulatedCluster):
        async def replace(self, manifest: Raw) -> Raw:
            await asyncio.sleep(latency)
            return await super().replace(manifest)

    async def main() -> bool:
        leader = replica(Slow(), "a", LeaderElection())
        await leader.acquire()
        keeping = asyncio.create_task(leader.keep())
        await asyncio.sleep(600)
        alive = not keeping.done()
        keeping.cancel()
        return alive

    assert run(main())


@given(frozen=st.floats(10.01, 1e6))
def test_after_a_freeze_past_its_lease_the_leader_must_not_write(frozen: float) -> None:
    async def main() -> None:
        leader = replica(SimulatedCluster(), "a")
        await leader.acquire()
        leader.may_write()
        await asyncio.sleep(frozen)
        with pytest.raises(LeaseLost):
            leader.may_write()

    run(main())


def test_the_clock_of_the_former_leader_is_not_trusted() -> None:
    async def main() -> float:
        client = SimulatedCluster()
        await replica(client, "a").acquire()
        [lease] = client.objects.values()
        client.put({**lease, "spec": {**lease["spec"], "renewTime": "2001-01-01T00:00:00.000000Z"}})
        await replica(client, "b").acquire()
        return now()

    assert run(main()) >= 15


def test_two_replicas_that_race_for_a_free_lease_do_not_both_lead() -> None:
    async def main() -> list[bool]:
        client = SimulatedCluster()
        replicas = [replica(client, name) for name in "abc"]
        waiting = [asyncio.create_task(each.acquire()) for each in replicas]
        await asyncio.sleep(1)
        for task in waiting:
            task.cancel()
        return [each.is_leader for each in replicas]

    assert sum(run(main())) == 1


def test_without_election_a_replica_leads_without_a_lease() -> None:
    async def main() -> list[tuple[str, str, str]]:
        client = SimulatedCluster()
        leader = replica(client, "a", LeaderElection(enabled=False))
        metrics.LEADER.set(0)
        await leader.acquire()
        assert metrics.REGISTRY.get_sample_value("tunesmith_leader") == 1
        await asyncio.sleep(1000)
        leader.may_write()
        await leader.release()
        return client.calls

    assert run(main()) == []
