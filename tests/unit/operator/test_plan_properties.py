"""The three plans under the real controller on a simulated cluster: however events are delivered and whenever the process is
killed, the end is the same, and nothing is written afterwards."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.operator.plan.world import eval_job, fine_tune_job, inference_service
from tests.unit.operator.simulated_cluster import (
    NAMESPACE,
    RELIST_SECONDS,
    Clock,
    Controllers,
    Operator,
    Outcomes,
    SimulatedCluster,
    clock_seconds,
    comparable,
    sent_events,
)
from tests.unit.operator.virtual_time import run
from tunesmith_operator import controller
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.types import CHILDREN, Raw

LONGEST_SECONDS = 4 * 3600
"""Time on the cluster's clock within which a chain must come to rest."""
QUIET_SECONDS = 120
"""Time without a write after which it is at rest."""
CREATED = tuple(kind for kind in CHILDREN if kind != "Pod")

TUNED: Raw = {"fineTuneJob": {"name": "tune"}}
RESOURCES: tuple[Raw, ...] = (
    fine_tune_job("tune", retries=2, resources={"accelerator": "nvidia"}),
    eval_job(
        "eval",
        model=TUNED,
        baseline={"uri": "s3://models/b"},
        gates=[{"benchmark": "support-qa", "min": 0.6}],
        retries=2,
    ),
    inference_service("serve", model=TUNED, promotion={"evalJobs": [{"name": "eval"}]}),
)
GOOD_END = {"FineTuneJob/tune": "Succeeded", "EvalJob/eval": "Succeeded", "InferenceService/serve": "Ready"}
steady = settings(
    max_examples=examples(5),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


UNEXPECTED: list[BaseException | None] = []
"""Errors that the controller has caught and that should not occur."""

Act = tuple[int, Callable[[SimulatedCluster], None]]
"""The second, and the act of a user."""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "datetime", Clock)
    monkeypatch.setattr(controller.log, "exception", lambda *_: UNEXPECTED.append(sys.exc_info()[1]))


@dataclass(frozen=True)
class Delivery:
    """The delivery of watch events, in turn."""

    delays: Sequence[tuple[float, ...]] = ((0.0,),)
    """For each event in turn, cyclically: its delays in seconds, one per delivery; () drops it."""


PROMPT = Delivery()


@dataclass
class Life:
    """A chain at rest."""

    cluster: SimulatedCluster
    operator: Operator
    writes_at_rest: int

    @property
    def end(self) -> dict[str, Any]:
        return comparable(self.cluster, *KINDS, *CREATED)

    @property
    def phases(self) -> dict[str, str]:
        return {name: self.end[name]["status"]["phase"] for name in GOOD_END}


def live(
    resources: Sequence[Raw] = RESOURCES,
    outcomes: Outcomes | None = None,
    delivery: Delivery = PROMPT,
    kill: tuple[int, bool] | None = None,
    acts: Sequence[Act] = (),
) -> Life:
    """Run a chain until it is at rest, then reconcile every resource once more."""
    UNEXPECTED.clear()

    async def main() -> Life:
        cluster = SimulatedCluster()
        operator = Operator(cluster)
        controllers = Controllers(cluster, outcomes or {})
        cluster.on_event, cluster.kill_at = _through(delivery, operator), kill
        await _until_rest(cluster, operator, controllers, list(resources), sorted(acts, key=lambda act: act[0]))
        before = cluster.write_count
        for key in map(_key, resources):
            # A settled resource is not reconciled if a user deletes its Job later.
            if not acts or operator.controller.resources.is_unsettled(key):
                await operator.controller.reconcile(key)
        life = Life(cluster, operator, cluster.write_count - before)
        operator.stop()
        return life

    life = run(main())
    assert UNEXPECTED == []
    return life


async def _until_rest(
    cluster: SimulatedCluster, operator: Operator, controllers: Controllers, resources: list[Raw], acts: list[Act]
) -> None:
    """Step each second, create a resource every third second, and relist periodically."""
    quiet, writes = 0, -1
    while quiet < QUIET_SECONDS + RELIST_SECONDS:
        assert clock_seconds() < LONGEST_SECONDS, f"no rest: {comparable(cluster, *KINDS)}"
        turn = round(clock_seconds())
        if resources and turn % 3 == 0:
            cluster.put(resources.pop(0))
        while acts and acts[0][0] <= turn:
            acts.pop(0)[1](cluster)
        if turn % RELIST_SECONDS == RELIST_SECONDS - 1:
            operator.relist()
        await asyncio.sleep(1)
        while operator.restart_if_killed():
            await asyncio.sleep(1)  # nothing else happens while it reads everything
        controllers.step()
        quiet, writes = (quiet + 1 if writes == cluster.write_count else 0), cluster.write_count


def _through(delivery: Delivery, operator: Operator) -> Any:
    """Deliver watch events as `delivery` asks. Dropped events are made up for by the next list."""
    turns = _again(delivery.delays)

    def deliver(event_type: str | None, obj: Raw) -> None:
        for delay in next(turns):
            if delay:
                asyncio.get_running_loop().call_later(delay, operator.on_event, event_type, obj)
            else:
                operator.on_event(event_type, obj)

    return deliver


def _again(delays: Sequence[tuple[float, ...]]) -> Iterator[tuple[float, ...]]:
    while True:
        yield from delays


def _key(resource: Raw) -> Any:
    return controller.ResourceKey(resource["kind"], NAMESPACE, resource["metadata"]["name"])


def change(place: tuple[str, str], **spec: Any) -> Callable[[SimulatedCluster], None]:
    """A user edits a spec."""

    def act(cluster: SimulatedCluster) -> None:
        found = cluster.objects.get((place[0], NAMESPACE, place[1]))
        if found is not None:
            cluster.put({**found, "spec": {**found["spec"], **spec}})

    return act


def take(place: tuple[str, str]) -> Callable[[SimulatedCluster], None]:
    """A user deletes an object."""
    return lambda cluster: cluster.remove((place[0], NAMESPACE, place[1]))


def make(resource: Raw) -> Callable[[SimulatedCluster], None]:
    """A user creates a resource, if it does not exist."""
    place = (resource["kind"], NAMESPACE, resource["metadata"]["name"])
    bare = {**resource, "metadata": {"name": place[2], "namespace": NAMESPACE}}
    return lambda cluster: None if place in cluster.objects else (cluster.put(bare), None)[1]


# Only one role of the EvalJob fails: status.attempt counts both roles, so that two failures would give numbers by their order.
outcomes = st.dictionaries(
    st.tuples(st.sampled_from(["tune", "eval-model"]), st.integers(1, 2)),
    st.sampled_from(["OOM", "preempted"]),
    max_size=3,
)
delays = st.lists(st.floats(0, 30), max_size=2).map(tuple)
deliveries = st.lists(delays, min_size=1, max_size=8).map(Delivery)
orders = st.permutations(RESOURCES)
places = st.sampled_from([(resource["kind"], resource["metadata"]["name"]) for resource in RESOURCES])
children = st.sampled_from(
    [
        *(("Job", f"{role}-{number}") for role in ("tune-tune", "eval-eval-model") for number in (1, 2)),
        *(("Pod", f"{role}-1-x") for role in ("tune-tune", "eval-eval-baseline")),
        ("Deployment", "serve"),
        ("Service", "serve"),
    ]
)
acts = st.lists(
    st.tuples(
        st.integers(0, 120),
        st.one_of(
            st.builds(lambda place, suspend: change(place, suspend=suspend), places, st.booleans()),
            st.builds(lambda replicas: change(("InferenceService", "serve"), replicas=replicas), st.integers(0, 3)),
            st.builds(lambda retries: change(("FineTuneJob", "tune"), retries=retries), st.integers(0, 3)),
            st.builds(take, st.one_of(places, children)),
            st.builds(make, st.sampled_from(RESOURCES)),
        ),
    ),
    max_size=12,
)


WAITS = {"WaitingForModel", "WaitingForVerdict"}
"""Reasons that a killed operator may never report: the wait may end before it restarts."""


def test_a_chain_of_all_kinds_succeeds() -> None:
    life = live()
    assert life.phases == GOOD_END
    assert life.writes_at_rest == 0


@given(order=orders, outcomes=outcomes)
@steady
def test_a_reconcile_at_rest_writes_nothing(order: Sequence[Raw], outcomes: Outcomes) -> None:
    life = live(order, outcomes)
    assert life.phases == GOOD_END
    assert life.writes_at_rest == 0


@given(order=orders, outcomes=outcomes, delivery=deliveries)
@steady
def test_delayed_dropped_repeated_and_reordered_events_lead_to_the_same_end(
    order: Sequence[Raw], outcomes: Outcomes, delivery: Delivery
) -> None:
    assert live(order, outcomes, delivery).end == live(outcomes=outcomes).end


@given(outcomes=outcomes, data=st.data(), after=st.booleans())
@steady
def test_a_kill_at_any_write_leads_to_the_same_end_and_the_same_events(
    outcomes: Outcomes, data: st.DataObject, after: bool
) -> None:
    undisturbed = live(outcomes=outcomes)
    number = data.draw(st.integers(1, undisturbed.cluster.write_count))
    disturbed = live(outcomes=outcomes, kill=(number, after))
    assert disturbed.operator.restarts == 1
    assert disturbed.end == undisturbed.end
    all_sent, still_sent = Counter(sent_events(undisturbed.cluster)), Counter(sent_events(disturbed.cluster))
    assert still_sent <= all_sent
    assert {reason for _, reason in all_sent - still_sent} <= WAITS


@pytest.mark.deep
def test_a_kill_at_each_write_of_a_life_with_failures_leads_to_the_same_end() -> None:
    outcomes = {("tune", 1): "OOM", ("tune", 2): "preempted", ("eval-model", 1): "OOM"}
    undisturbed = live(outcomes=outcomes)
    for number in range(1, undisturbed.cluster.write_count + 1):
        for after in (False, True):
            disturbed = live(outcomes=outcomes, kill=(number, after))
            assert disturbed.operator.restarts == 1, (number, after)
            assert disturbed.end == undisturbed.end, (number, after)
            assert sent_events(disturbed.cluster) == sent_events(undisturbed.cluster), (number, after)


@given(outcomes=outcomes, delivery=deliveries, acts=acts)
@steady
def test_after_any_edits_and_deletions_it_comes_to_rest_without_orphans(
    outcomes: Outcomes, delivery: Delivery, acts: Sequence[Act]
) -> None:
    life = live(outcomes=outcomes, delivery=delivery, acts=acts)
    objects = life.cluster.objects
    uids = {obj["metadata"]["uid"] for obj in objects.values()}
    for (kind, _, name), obj in objects.items():
        owners = obj["metadata"].get("ownerReferences", ())
        assert kind in KINDS or kind in ("Event", "Pod") or all(owner["uid"] in uids for owner in owners), (kind, name)
        if kind in KINDS:
            assert obj["status"]["observedGeneration"] == obj["metadata"]["generation"]
            assert not obj["spec"].get("suspend") or obj["status"]["phase"] in ("Suspended", "Succeeded", "Failed")
    active = Counter(_role(obj) for (kind, *_), obj in objects.items() if kind == "Job" and not _is_over(obj))
    assert max(active.values(), default=0) <= 1
    assert life.writes_at_rest == 0


def _role(job: Raw) -> tuple[str, str]:
    labels = job["metadata"]["labels"]
    return labels["tunesmith.dev/uid"], labels["tunesmith.dev/role"]


def _is_over(job: Raw) -> bool:
    return bool(job.get("status", {}).get("conditions"))
