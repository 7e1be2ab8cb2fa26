"""An API server that is slow, overloaded, broken, away or forgetful: the operator gets to the same end, deletes nothing,
and stays small."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import pytest
import urllib3

from devcluster.standalone import ControlPlane
from tests.apiserver.cluster import Cluster
from tests.apiserver.finetunejobs import tune
from tests.apiserver.proxy import Answer, Call, Dropped, Fault, Forward, Lines, Tamper, no_fault, no_tampering
from tests.apiserver.survival import (
    CHAIN,
    MADE,
    Harness,
    Step,
    await_status,
    different,
    end_state,
    orphans,
    play,
    supervised_operator,
    uids,
)

LARGEST_MIB = 200
"""Bound on the operator's resident memory. It has about 75 MiB when all is well."""
BEFORE = 5
"""How many steps of the chain are played before a trouble begins: training is under way then."""
LONGEST_SECONDS = 300
"""A step that takes longer than this under a fault has failed."""


def slow(seconds: float) -> Fault:
    """Every request takes so long, the Lease's and the opening of watches among them."""

    async def fault(_: Call, forward: Forward) -> Answer:
        await asyncio.sleep(seconds)
        return await forward()

    return fault


def busy(retry_after: int) -> Fault:
    """Every other request, on average, is answered 429 with the time after which to come again; but for the Lease,
    which the API server serves by a priority level of its own."""
    chance = random.Random(retry_after)

    async def fault(call: Call, forward: Forward) -> Answer:
        if not call.is_lease and chance.random() < 0.5:
            return refusal(429, "TooManyRequests", {"Retry-After": str(retry_after)})
        return await forward()

    return fault


async def broken(_: Call, __: Forward) -> Answer:
    """Every request is answered 500."""
    return refusal(500, "InternalError")


def expired(token: str) -> Fault:
    """Every request with that token is answered 401."""

    async def fault(call: Call, forward: Forward) -> Answer:
        if call.headers.get("Authorization") == token:
            return refusal(401, "Unauthorized")
        return await forward()

    return fault


def refusal(code: int, reason: str, headers: dict[str, str] | None = None) -> Answer:
    """A Status as the API server answers it."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": ""}
    return Answer(code, {"Content-Type": "application/json", **(headers or {})}, json.dumps(status).encode())


async def cut(_: Call, lines: Lines) -> Lines:
    """Every watch is cut within three seconds, or in the middle of its fourth event."""
    end = time.monotonic() + random.uniform(1, 3)
    for number in itertools.count():
        try:
            line = await asyncio.wait_for(anext(lines), max(0.0, end - time.monotonic()))
        except (TimeoutError, StopAsyncIteration):
            raise Dropped from None
        if number == 3:
            yield line[: len(line) // 2]
            raise Dropped
        yield line


async def gone(_: Call, lines: Lines) -> Lines:
    """Every watch gets 410 within three seconds, so that everything is listed again."""
    end = time.monotonic() + random.uniform(1, 3)
    while (left := end - time.monotonic()) > 0:
        try:
            yield await asyncio.wait_for(anext(lines), left)
        except (TimeoutError, StopAsyncIteration):
            break
    yield json.dumps({"type": "ERROR", "object": json.loads(refusal(410, "Expired").body)}).encode() + b"\n"


def late(seconds: float) -> Tamper:
    """Every event of a watch comes so much later than it happened, while what is asked for is as it is now."""

    async def tamper(_: Call, lines: Lines) -> Lines:
        waiting: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue()

        async def read() -> None:
            async for line in lines:
                waiting.put_nowait((time.monotonic() + seconds, line))
            waiting.put_nowait((time.monotonic(), None))

        reader = asyncio.create_task(read())
        try:
            while (item := await waiting.get())[1] is not None:
                await asyncio.sleep(item[0] - time.monotonic())
                yield item[1]
        finally:
            reader.cancel()

    return tamper


@dataclass(frozen=True)
class Trouble:
    """What is done to the operator while a chain goes on."""

    begins: Callable[[Harness], AbstractContextManager[object]]
    blind_seconds: float = 0.0
    """How long it lasts, where nothing can be got done under it; 0: it goes on to the chain's end."""
    is_outage: bool = False
    """Whether nothing can happen in the cluster meanwhile either."""
    before: int = BEFORE
    """How many steps of the chain are played before it begins."""


def through(fault: Fault = no_fault, tamper: Tamper = no_tampering) -> Callable[..., AbstractContextManager[object]]:
    """A trouble that the proxy makes. Watches that are open end when it begins and when it is over."""

    @contextmanager
    def begins(harness: Harness) -> Iterator[None]:
        harness.proxy.fault, harness.proxy.tamper = fault, tamper
        harness.proxy.cut_streams()
        yield
        harness.proxy.fault, harness.proxy.tamper = no_fault, no_tampering
        harness.proxy.cut_streams()

    return begins


@contextmanager
def without_api_server(harness: Harness) -> Iterator[None]:
    """The API server is away."""
    harness.plane.stop_component("kube-apiserver")
    try:
        yield
    finally:
        harness.plane.start_component("kube-apiserver")


@contextmanager
def with_an_old_token(harness: Harness) -> Iterator[None]:
    """The token in use expires; at the end the file has a new token."""
    harness.proxy.fault = expired(harness.operator.authorization)
    harness.proxy.cut_streams()
    yield
    harness.operator.renew_credentials()


def ended(call: Call, lines: Lines) -> Lines:
    """Every watch ends within three seconds, in one way or the other."""
    return random.choice((cut, gone))(call, lines)


TROUBLES: dict[str, Trouble] = {
    "every other request is answered 429": Trouble(through(busy(2))),
    "watches are cut every few seconds, or within an event": Trouble(through(tamper=cut)),
    "watches get 410 Gone every few seconds": Trouble(through(tamper=gone)),
    "every request is answered 500 for 90 s": Trouble(through(broken), blind_seconds=90),
    "the token is good no more, for 1 min": Trouble(with_an_old_token, blind_seconds=60),
    "the API server is down for 2 min": Trouble(without_api_server, blind_seconds=120, is_outage=True),
    "watch events come 30 s late": Trouble(through(tamper=late(30)), before=2),
    "each request takes 5 s": Trouble(through(slow(5))),
}
TROUBLES |= {
    f"{name}, when the service answers": replace(trouble, before=len(CHAIN))
    for name, trouble in TROUBLES.items()
    if trouble.blind_seconds
}
SAMPLE: dict[str, Trouble] = {
    "each request takes 0.2 s, and watches end": Trouble(through(slow(0.2), ended)),
    "every request is answered 500 for 15 s": Trouble(through(broken), blind_seconds=15),
}


@pytest.fixture(scope="module")
def harness(
    plane: ControlPlane, http: urllib3.PoolManager, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Harness]:
    with supervised_operator(plane, http, tmp_path_factory.mktemp("faults"), leaderElection={}) as harness:
        yield harness


@pytest.fixture(scope="module")
def wanted(harness: Harness) -> dict[str, object]:
    """The end of a chain to which nothing is done."""
    return harness.undisturbed()[1]


def happen(cluster: Cluster, steps: Sequence[Step]) -> None:
    """Play steps without waiting for the operator."""
    for step in steps:
        step.happens(cluster)


def await_steps(cluster: Cluster, steps: Sequence[Step], seconds: float = 60) -> None:
    """Wait until the statuses show steps that have been played."""
    for step in steps:
        await_status(cluster, step, seconds)


def is_at_work(harness: Harness) -> None:
    """Assert that the operator processes a new resource, in a namespace of its own."""
    with harness.namespace() as elsewhere:
        tune(elsewhere, "new")
        elsewhere.job("new-tune-1")


def suffer(harness: Harness, trouble: Trouble, wanted: dict[str, object]) -> str:
    """Play a chain under a trouble. Returns how it went."""
    restarts, began = harness.operator.restarts, time.monotonic()
    meanwhile = CHAIN[trouble.before : trouble.before + 1]
    then = CHAIN[trouble.before + 1 :]
    with harness.namespace() as cluster:
        play(cluster, CHAIN[: trouble.before])
        harness.come_to_rest(cluster.namespace)
        children, pods = uids(cluster), uids(cluster, ["Pod"])
        with trouble.begins(harness):
            if not trouble.is_outage:
                happen(cluster, meanwhile)
            if trouble.blind_seconds:
                time.sleep(trouble.blind_seconds)
            else:
                await_steps(cluster, meanwhile, LONGEST_SECONDS)
                play(cluster, then, LONGEST_SECONDS)
        if trouble.blind_seconds:
            if trouble.is_outage:
                happen(cluster, meanwhile)
            await_steps(cluster, meanwhile)
            play(cluster, then)
        is_at_work(harness)
        harness.come_to_rest(cluster.namespace)
        assert different(end_state(cluster), wanted) == []
        assert orphans(cluster) == []
        assert children.items() <= uids(cluster).items(), "a child was deleted"
        assert meanwhile or uids(cluster, (*MADE, "Pod")) == children | pods, "not the children that answered"
        assert not [write.what for write in harness.proxy.writes(cluster.namespace) if write.call.method == "DELETE"]
    assert harness.operator.peak_mib < LARGEST_MIB
    seconds, restarted = time.monotonic() - began, harness.operator.restarts - restarts
    return f"{seconds:.0f} s, {restarted} restarts, at most {harness.operator.peak_mib:.0f} MiB"


@pytest.mark.parametrize("name", [*SAMPLE, *(pytest.param(name, marks=pytest.mark.deep) for name in TROUBLES)])
def test_a_chain_under_a_fault_comes_to_the_same_end(
    harness: Harness, wanted: dict[str, object], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    went = suffer(harness, (TROUBLES | SAMPLE)[name], wanted)
    with capsys.disabled():
        print(f"\n{name}: {went}")


def test_a_child_that_went_while_no_watch_was_open_is_missed_no_longer_than_to_the_next_list(harness: Harness) -> None:
    with harness.namespace() as cluster:
        play(cluster, CHAIN[:BEFORE])
        job = cluster.job("support-tune-1")
        with through(watchless)(harness):
            cluster.delete("Job", "support-tune-1")
            cluster.until("its pods are gone", lambda: not cluster.find("Pod"))
        made = cluster.job("support-tune-2")
        assert made["metadata"]["ownerReferences"] == job["metadata"]["ownerReferences"]
        assert [write.what for write in harness.proxy.writes(cluster.namespace)].count(
            "create jobs/support-tune-2"
        ) == 1


async def watchless(call: Call, forward: Forward) -> Answer:
    """No watch can be opened, and what comes next is a list: the history is gone."""
    return refusal(410, "Expired") if call.is_watch else await forward()
