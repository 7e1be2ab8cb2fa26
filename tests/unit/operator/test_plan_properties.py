"""The three plans carried out by the real controller on a cluster in memory: whatever is heard of it, in whatever order, and
whenever the process is killed, the end is the same, and then nothing is written any more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.operator.plan.world import eval_job, fine_tune_job, inference_service
from tests.unit.operator.twin import (
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
from tunesmith_operator.client import Raw
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.types import CHILDREN

LONGEST = 4 * 3600
"""Seconds on the cluster's clock in which a chain must have come to its end."""
QUIET = 120
"""Seconds without a write after which it has."""
MADE = tuple(kind for kind in CHILDREN if kind != "Pod")

TUNED: Raw = {"fineTuneJob": {"name": "tune"}}
RESOURCES: tuple[Raw, ...] = (
    fine_tune_job("tune", retries=2),
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


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "datetime", Clock)


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
) -> Life:
    """Live a chain to its end; then look at everything once more."""

    async def main() -> Life:
        twin = Twin()
        operator = Operator(twin)
        environment = Environment(twin, fate or {})
        twin.hear, twin.kill = _through(delivery, operator), kill
        await _until_rest(twin, operator, environment, list(resources))
        before = twin.count
        for resource in resources:
            await operator.controller.reconcile(_key(resource))
        life = Life(twin, operator, twin.count - before)
        operator.stop()
        return life

    return run(main())


async def _until_rest(twin: Twin, operator: Operator, environment: Environment, resources: list[Raw]) -> None:
    """A turn each second, a resource each third of them, a list now and then."""
    quiet, writes = 0, -1
    while quiet < QUIET + BETWEEN_LISTS:
        assert seconds() < LONGEST, f"no rest: {normal(twin, *KINDS)}"
        turn = round(seconds())
        if resources and turn % 3 == 0:
            twin.put(resources.pop(0))
        if turn % BETWEEN_LISTS == BETWEEN_LISTS - 1:
            operator.list_anew()
        operator.start_again_if_dead()
        await asyncio.sleep(1)
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


fates = st.dictionaries(
    st.tuples(st.sampled_from(["tune", "eval-model", "eval-baseline"]), st.integers(1, 2)),
    st.sampled_from(["OOM", "preempted"]),
    max_size=3,
)
delays = st.lists(st.floats(0, 30), max_size=2).map(tuple)
deliveries = st.lists(delays, min_size=1, max_size=8).map(Delivery)
orders = st.permutations(RESOURCES)


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
    assert told(disturbed.twin) == told(undisturbed.twin)
