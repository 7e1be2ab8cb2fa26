from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.operator.simulated_cluster import SimulatedCluster
from tunesmith_operator.children import ChildCache
from tunesmith_operator.client import ApiError
from tunesmith_operator.observe import child_uids, observe, observe_events
from tunesmith_operator.plan.types import Key, KindPlan, Observed, Plan, Raw, Reference

UID = "ours"
RESOURCE: Raw = {"kind": "FineTuneJob", "metadata": {"name": "support", "namespace": "team", "uid": UID}}


def kind(*gets: Key, references: tuple[Reference, ...] = (), wants: tuple[Key, ...] = ()) -> KindPlan:
    return KindPlan(
        kind="FineTuneJob",
        lists=("Job", "Deployment", "Pod"),
        gets=lambda resource: frozenset(gets),
        references=lambda resource: frozenset(references),
        wants_events=lambda resource, observed, now: frozenset(wants),
        plan=lambda resource, observed, now, config, token: Plan(),
    )


def child(kind: str, name: str, owner: tuple[str, str, str] | None, labelled: bool = True, **rest: Any) -> Raw:
    """An object whose controller is `owner` (kind, name, uid)."""
    owners = [{"kind": owner[0], "name": owner[1], "uid": owner[2], "controller": True}] if owner else []
    labels = {"tunesmith.dev/uid": UID} if labelled else {}
    metadata = {"name": name, "namespace": "team", "uid": f"uid-{name}", "labels": labels, "ownerReferences": owners}
    return {"kind": kind, "metadata": metadata, **rest}


def observe_once(client: SimulatedCluster, plan: KindPlan, status: Raw | None = None) -> Observed:
    return asyncio.run(observe(client, ChildCache(), plan, {**RESOURCE, "status": status or {}}, {}))


def names(things: tuple[Raw, ...]) -> list[str]:
    return sorted(each["metadata"]["name"] for each in things)


OURS = ("FineTuneJob", "support", UID)
FORMER = ("FineTuneJob", "support", "former")


def test_ownership_is_by_controller_and_not_by_labels() -> None:
    client = SimulatedCluster(
        child("Job", "a", OURS),
        child("Job", "b", FORMER),
        child("Job", "c", None),
        child("Job", "d", OURS, labelled=False),
    )
    assert names(observe_once(client, kind()).jobs) == ["a"]


def test_pods_of_a_deleted_job_are_observed() -> None:
    client = SimulatedCluster(
        child("Job", "a", OURS),
        child("Pod", "of-a", ("Job", "a", "uid-a")),
        child("Pod", "of-another-a", ("Job", "a", "older")),
        child("Pod", "of-a-deleted-job", ("Job", "b", "uid-b")),
        child("Pod", "of-a-replica-set", ("ReplicaSet", "r", "uid-r")),
        child("Pod", "of-nobody", None),
    )
    assert names(observe_once(client, kind()).pods) == ["of-a", "of-a-deleted-job", "of-a-replica-set"]


def test_a_child_that_the_status_names_is_read_by_name_before_it_counts_as_gone() -> None:
    class Lagging(SimulatedCluster):
        """Its watch cache is empty."""

        async def list(self, *arguments: Any, cached: bool = False, **rest: Any) -> list[Raw]:
            return [] if cached else await super().list(*arguments, **rest)

    client = Lagging(child("Job", "a", OURS))
    status = {"children": [{"kind": "Job", "name": "a"}, {"kind": "Job", "name": "gone"}]}
    assert names(observe_once(client, kind(), status).jobs) == ["a"]


@pytest.mark.parametrize("status", [{"failed": 1}, {"uncountedTerminatedPods": {"failed": ["uid-of-a"]}}])
def test_a_pod_that_the_job_controller_has_counted_is_listed_from_etcd_before_it_counts_as_gone(status: Raw) -> None:
    class Lagging(SimulatedCluster):
        """Its watch cache has Jobs only."""

        async def list(self, kind: str, *arguments: Any, cached: bool = False, **rest: Any) -> list[Raw]:
            return [] if cached and kind == "Pod" else await super().list(kind, *arguments, **rest)

    job, pod = child("Job", "a", OURS, status=status), child("Pod", "of-a", ("Job", "a", "uid-a"))
    assert names(observe_once(Lagging(job, pod), kind()).pods) == ["of-a"]


def test_children_with_a_stream_are_listed_once() -> None:
    client, cache = SimulatedCluster(child("Job", "a", OURS)), ChildCache()
    for streamed in ("Job", "Pod"):
        cache.on_stream_start(streamed, None, "1")
    for _ in range(3):
        assert names(asyncio.run(observe(client, cache, kind(), RESOURCE, {})).jobs) == ["a"]
    assert [call[1] for call in client.calls] == ["Job", "Deployment", "Pod", "Deployment", "Deployment"]


def test_a_child_of_a_fixed_name_is_read_once_and_an_absent_child_each_time() -> None:
    there, absent = Key("Deployment", "support"), Key("Service", "support")
    client, cache = SimulatedCluster(child("Deployment", "support", OURS)), ChildCache()
    for streamed in ("Deployment", "Service"):
        cache.on_stream_start(streamed, None, "1")
    for _ in range(3):
        observed = asyncio.run(observe(client, cache, kind(there, absent), RESOURCE, {}))
        assert names(observed.deployments) == ["support"]
    reads = [call[1] for call in client.calls if call[0] == "get"]
    assert (reads.count("Deployment"), reads.count("Service")) == (1, 3)


def test_a_lagging_watch_cache_is_bypassed() -> None:
    class Behind(SimulatedCluster):
        async def list(self, *arguments: Any, cached: bool = False, **rest: Any) -> list[Raw]:
            if cached:
                raise ApiError("GET", 504, "Timeout", "Too large resource version: 9, current: 1")
            return await super().list(*arguments, **rest)

    assert names(observe_once(Behind(child("Job", "a", OURS)), kind()).jobs) == ["a"]


def test_an_object_with_the_name_of_a_child_and_another_controller_is_foreign() -> None:
    client = SimulatedCluster(child("Deployment", "support", FORMER), child("Service", "support", OURS, labelled=False))
    keys = Key("Deployment", "support"), Key("Service", "support")
    observed = observe_once(client, kind(*keys))
    assert observed.foreign == observed.former == {keys[0]}
    assert observed.deployments == ()
    assert child_uids(observed) == {keys[1]: "uid-support"}


def test_references_are_read_and_absent_ones_are_none() -> None:
    there, absent = Reference("EvalJob", "there"), Reference("EvalJob", "absent")
    client = SimulatedCluster(child("EvalJob", "there", None))
    observed = observe_once(client, kind(references=(there, absent)))
    assert observed.references[absent] is None
    assert (observed.references[there] or {})["metadata"]["uid"] == "uid-there"


def test_events_are_read_only_when_they_are_wanted() -> None:
    client = SimulatedCluster(child("Event", "e", None))
    now = datetime.now(UTC)
    for wanted, read in ((), 0), ((Key("Job", "a"),), 1):
        observed = asyncio.run(observe_events(client, kind(wants=wanted), RESOURCE, Observed(), now))
        assert len(observed.events) == read
        assert len([call for call in client.calls if call[1] == "Event"]) == read
