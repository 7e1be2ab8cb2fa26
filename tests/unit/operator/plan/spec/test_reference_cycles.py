from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.plan.world import Cluster, eval_job, fine_tune_job, inference_service
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.spec.reference_cycles import OPEN_RING, Node, describe_ring, find_ring, node
from tunesmith_operator.plan.types import Raw, Reference

KIND = "FineTuneJob"
A, B, C = (Reference(KIND, name) for name in "abc")
GRAPHS = st.dictionaries(st.sampled_from("abcdef"), st.frozensets(st.sampled_from("abcdef"), max_size=3))


def ring(graph: dict[str, frozenset[str]], start: str) -> tuple[str, ...]:
    nodes = {
        Reference(KIND, name): Node(frozenset(Reference(KIND, one) for one in needs), gives=False)
        for name, needs in graph.items()
    }
    first = nodes.get(Reference(KIND, start), Node(frozenset(), gives=False))
    return tuple(one.name for one in find_ring(Reference(KIND, start), first, nodes.get))


@settings(deadline=None)
@given(GRAPHS, st.sampled_from("abcdef"))
def test_a_ring_is_found_exactly_where_a_resource_can_be_reached_from_itself(
    graph: dict[str, frozenset[str]], start: str
) -> None:
    reached: set[str] = set()
    fresh = graph.get(start, frozenset())
    while fresh:
        reached |= fresh
        fresh = frozenset(far for near in fresh for far in graph.get(near, ())) - reached
    found = ring(graph, start)
    assert bool(found) == (start in reached)
    if found:
        assert (found[0], found[-1]) == (start, start)
        assert all(later in graph[earlier] for earlier, later in pairwise(found))
        assert len({*found}) == len(found) - 1


@pytest.mark.parametrize(
    ("thing", "needs", "gives"),
    [
        (fine_tune_job(), True, False),
        ({**fine_tune_job(), "status": {"phase": "Waiting"}}, True, False),
        ({**fine_tune_job(), "status": {"phase": "Failed"}}, True, False),
        ({**fine_tune_job(), "status": {"phase": "Running"}}, False, False),
        ({**fine_tune_job(), "status": {"phase": "Succeeded", "completionTime": "2026-01-01T00:00:00Z"}}, False, True),
        ({**fine_tune_job(), "status": {"phase": "Failed", "completionTime": "2026-01-01T00:00:00Z"}}, False, True),
        ({**eval_job(), "status": {"phase": "Waiting", "model": {"uri": "s3://made/b"}}}, True, False),
        ({**inference_service(), "status": {"phase": "Waiting"}}, True, False),
        ({**inference_service(), "status": {"phase": "Waiting", "model": {"uri": "s3://made/b"}}}, False, True),
    ],
    ids=lambda value: value.get("status", {}).get("phase", "new") if isinstance(value, dict) else str(value),
)
def test_what_runs_or_has_ended_waits_for_nothing(thing: Raw, needs: bool, gives: bool) -> None:
    assert node(thing, frozenset({A})) == Node(frozenset({A}) if needs else frozenset(), gives)


def test_the_ring_is_written_out() -> None:
    assert describe_ring((A, B, A)).startswith("a reference ring: FineTuneJob/a -> FineTuneJob/b -> FineTuneJob/a: ")


@pytest.mark.parametrize(
    "thing",
    [
        fine_tune_job("a", model={"fineTuneJob": {"name": "b"}}),
        eval_job("a", model={"uri": "s3://models/a"}, baseline={"fineTuneJob": {"name": "b"}}),
        inference_service("a", adapters=[{"name": "x", "fineTuneJob": {"name": "b"}}]),
        inference_service("a", promotion={"evalJobs": [{"name": "b"}]}),
    ],
    ids=["tune", "baseline", "adapter", "promotion"],
)
def test_a_member_of_a_ring_fails_where_it_would_have_waited_and_goes_on_when_the_ring_is_open(thing: Raw) -> None:
    (named,) = KINDS[thing["kind"]].references(thing)
    own = Reference(thing["kind"], "a")
    cluster = Cluster(thing, ring=(own, named, own))
    cluster.settle()
    assert cluster.status["phase"] == "Failed"
    assert cluster.status["message"] == f"{describe_ring((own, named, own))}. Hint: {OPEN_RING}"
    assert cluster.status["lastFailure"]["message"] == describe_ring((own, named, own))
    assert cluster.status["lastFailure"]["hint"] == OPEN_RING
    assert cluster.status["lastFailure"]["class"] == "BadSpec"
    assert cluster.condition("Stalled")["status"] == "True"
    assert not cluster.jobs
    assert not cluster.deployments
    cluster.ring = ()
    cluster.settle()
    assert cluster.status["phase"] == "Waiting"
    assert cluster.condition("Stalled")["status"] == "False"
    assert "lastFailure" not in cluster.status
