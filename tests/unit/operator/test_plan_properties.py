"""The three plans carried out by the real controller on a cluster in memory: whatever is heard of it, in whatever order, and
whenever the process is killed, the end is the same, and then nothing is written any more."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.operator.plan.world import eval_job, fine_tune_job, inference_service
from tests.unit.operator.simulated_cluster import (
    BETWEEN_LISTS,
    NAMESPACE,
    Clock,
    Environment,
    Fate,
    Operator,
    Twin,
    normal,
    seconds,
    told,
)
from tests.unit.operator.virtual_time import run
from tunesmith_operator import controller
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.types import CHILDREN, Raw

LONGEST = 4 * 3600
"""Seconds on the cluster's clock in which a chain must have come to its end."""
QUIET = 120
"""Seconds without a write after which it has."""
MADE = tuple(kind for kind in CHILDREN if kind != "Pod")

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
    max_examples=int(os.environ.get("TUNESMITH_EXAMPLES", "8")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


UNEXPECTED: list[BaseException | None] = []
"""Errors that the controller has survived, but should not have met."""

Act = tuple[int, Callable[[Twin], None]]
"""When, in seconds, and what somebody does."""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "datetime", Clock)
    monkeypatch.setattr(controller.log, "exception", lambda *_: UNEXPECTED.append(sys.exc_info()[1]))


@dataclass(frozen=True)
class Delivery:
    """What becomes of one watch event after another: when it is heard, if at all."""

    delays: Sequence[tuple[float, ...]] = ((0.0,),)
    """Of each event in turn, again and again: the seconds after which it is heard, once for each; () is dropped."""


PROMPT = Delivery()


@dataclass
class Life:
    """What a chain has come to."""

    twin: Twin
    operator: Operator
    writes_at_rest: int

    @property
    def end(self) -> dict[str, Any]:
        return normal(self.twin, *KINDS, *MADE)

    @property
    def phases(self) -> dict[str, str]:
        return {name: self.end[name]["status"]["phase"] for name in GOOD_END}


def live(
    resources: Sequence[Raw] = RESOURCES,
    fate: Fate | None = None,
    delivery: Delivery = PROMPT,
    kill: tuple[int, bool] | None = None,
    acts: Sequence[Act] = (),
) -> Life:
    """Live a chain to its end; then look at everything once more."""
    UNEXPECTED.clear()

    async def main() -> Life:
        twin = Twin()
        operator = Operator(twin)
        environment = Environment(twin, fate or {})
        twin.hear, twin.kill = _through(delivery, operator), kill
        await _until_rest(twin, operator, environment, list(resources), sorted(acts, key=lambda act: act[0]))
        before = twin.count
        for key in map(_key, resources):
            # What has ended is not looked at for a Job that somebody takes from it later.
            if not acts or operator.controller.resources.is_unsettled(key):
                await operator.controller.reconcile(key)
        life = Life(twin, operator, twin.count - before)
        operator.stop()
        return life

    life = run(main())
    assert UNEXPECTED == []
    return life


async def _until_rest(
    twin: Twin, operator: Operator, environment: Environment, resources: list[Raw], acts: list[Act]
) -> None:
    """A turn each second, a resource each third of them, a list now and then."""
    quiet, writes = 0, -1
    while quiet < QUIET + BETWEEN_LISTS:
        assert seconds() < LONGEST, f"no rest: {normal(twin, *KINDS)}"
        turn = round(seconds())
        if resources and turn % 3 == 0:
            twin.put(resources.pop(0))
        while acts and acts[0][0] <= turn:
            acts.pop(0)[1](twin)
        if turn % BETWEEN_LISTS == BETWEEN_LISTS - 1:
            operator.list_anew()
        await asyncio.sleep(1)
        while operator.start_again_if_dead():
            await asyncio.sleep(1)  # nothing else happens until it has caught up
        environment.turn()
        quiet, writes = (quiet + 1 if writes == twin.count else 0), twin.count


def _through(delivery: Delivery, operator: Operator) -> Any:
    """Watch events as `delivery` has them. Streams lie only until they begin anew, so in what they drop is no end."""
    turns = _again(delivery.delays)

    def hear(event_type: str | None, thing: Raw) -> None:
        for delay in next(turns):
            if delay:
                asyncio.get_running_loop().call_later(delay, operator.hear, event_type, thing)
            else:
                operator.hear(event_type, thing)

    return hear


def _again(delays: Sequence[tuple[float, ...]]) -> Iterator[tuple[float, ...]]:
    while True:
        yield from delays


def _key(resource: Raw) -> Any:
    return controller.ResourceKey(resource["kind"], NAMESPACE, resource["metadata"]["name"])


def change(place: tuple[str, str], **spec: Any) -> Callable[[Twin], None]:
    """Somebody edits a spec."""

    def act(twin: Twin) -> None:
        there = twin.things.get((place[0], NAMESPACE, place[1]))
        if there is not None:
            twin.put({**there, "spec": {**there["spec"], **spec}})

    return act


def take(place: tuple[str, str]) -> Callable[[Twin], None]:
    """Somebody deletes an object."""
    return lambda twin: twin.remove((place[0], NAMESPACE, place[1]))


def make(resource: Raw) -> Callable[[Twin], None]:
    """Somebody makes a resource, if there is none."""
    place = (resource["kind"], NAMESPACE, resource["metadata"]["name"])
    bare = {**resource, "metadata": {"name": place[2], "namespace": NAMESPACE}}
    return lambda twin: None if place in twin.things else (twin.put(bare), None)[1]


# Only one role of the EvalJob fails: the two count their attempts by one number, so that which of them gets which depends
# on who fails first.
fates = st.dictionaries(
    st.tuples(st.sampled_from(["tune", "eval-model"]), st.integers(1, 2)),
    st.sampled_from(["OOM", "preempted"]),
    max_size=3,
)
delays = st.lists(st.floats(0, 30), max_size=2).map(tuple)
deliveries = st.lists(delays, min_size=1, max_size=8).map(Delivery)
orders = st.permutations(RESOURCES)
places = st.sampled_from([(one["kind"], one["metadata"]["name"]) for one in RESOURCES])
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
"""Told where somebody looks while they last: what is waited for may come while the operator is away."""


def test_a_chain_lives_to_a_good_end() -> None:
    life = live()
    assert life.phases == GOOD_END
    assert life.writes_at_rest == 0


@given(order=orders, fate=fates)
@steady
def test_a_look_at_what_is_at_rest_writes_nothing(order: Sequence[Raw], fate: Fate) -> None:
    life = live(order, fate)
    assert life.phases == GOOD_END
    assert life.writes_at_rest == 0


@given(order=orders, fate=fates, delivery=deliveries)
@steady
def test_events_late_dropped_doubled_and_out_of_order_lead_to_the_same_end(
    order: Sequence[Raw], fate: Fate, delivery: Delivery
) -> None:
    assert live(order, fate, delivery).end == live(fate=fate).end


@given(fate=fates, data=st.data(), after=st.booleans())
@steady
def test_a_kill_at_any_write_leads_to_the_same_end_and_the_same_events(
    fate: Fate, data: st.DataObject, after: bool
) -> None:
    undisturbed = live(fate=fate)
    number = data.draw(st.integers(1, undisturbed.twin.count))
    disturbed = live(fate=fate, kill=(number, after))
    assert disturbed.operator.restarts == 1
    assert disturbed.end == undisturbed.end
    all_told, still_told = Counter(told(undisturbed.twin)), Counter(told(disturbed.twin))
    assert still_told <= all_told
    assert {reason for _, reason in all_told - still_told} <= WAITS


@pytest.mark.deep
def test_a_kill_at_each_write_of_a_life_with_failures_leads_to_the_same_end() -> None:
    fate = {("tune", 1): "OOM", ("tune", 2): "preempted", ("eval-model", 1): "OOM"}
    undisturbed = live(fate=fate)
    for number in range(1, undisturbed.twin.count + 1):
        for after in (False, True):
            disturbed = live(fate=fate, kill=(number, after))
            assert disturbed.operator.restarts == 1, (number, after)
            assert disturbed.end == undisturbed.end, (number, after)
            assert told(disturbed.twin) == told(undisturbed.twin), (number, after)


@given(fate=fates, delivery=deliveries, acts=acts)
@steady
def test_whatever_somebody_does_it_comes_to_rest_and_leaves_nothing_over(
    fate: Fate, delivery: Delivery, acts: Sequence[Act]
) -> None:
    life = live(fate=fate, delivery=delivery, acts=acts)
    things = life.twin.things
    uids = {thing["metadata"]["uid"] for thing in things.values()}
    for (kind, _, name), thing in things.items():
        owners = thing["metadata"].get("ownerReferences", ())
        assert kind in KINDS or kind in ("Event", "Pod") or all(owner["uid"] in uids for owner in owners), (kind, name)
        if kind in KINDS:
            assert thing["status"]["observedGeneration"] == thing["metadata"]["generation"]
            assert not thing["spec"].get("suspend") or thing["status"]["phase"] in ("Suspended", "Succeeded", "Failed")
    at_work = Counter(_role(thing) for (kind, *_), thing in things.items() if kind == "Job" and not _is_over(thing))
    assert max(at_work.values(), default=0) <= 1
    assert life.writes_at_rest == 0


def _role(job: Raw) -> tuple[str, str]:
    labels = job["metadata"]["labels"]
    return labels["tunesmith.dev/uid"], labels["tunesmith.dev/role"]


def _is_over(job: Raw) -> bool:
    return bool(job.get("status", {}).get("conditions"))
