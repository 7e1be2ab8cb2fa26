from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.plan.world import Cluster, eval_job, fine_tune_job, inference_service
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.spec.reference_cycles import BREAK_CYCLE, Node, describe_cycle, find_cycle, node
from tunesmith_operator.plan.types import Raw, Reference

KIND = "FineTuneJob"
A, B, C = (Reference(KIND, name) for name in "abc")
GRAPHS = st.dictionaries(st.sampled_from("abcdef"), st.frozensets(st.sampled_from("abcdef"), max_size=3))


def cycle(graph: dict[str, frozenset[str]], start: str) -> tuple[str, ...]:
    nodes = {
        Reference(KIND, name): Node(frozenset(Reference(KIND, name) for name in needs), is_settled=False)
        for name, needs in graph.items()
    }
    first = nodes.get(Reference(KIND, start), Node(frozenset(), is_settled=False))
    return tuple(member.name for member in find_cycle(Reference(KIND, start), first, nodes.get))


@given(GRAPHS, st.sampled_from("abcdef"))
def test_a_cycle_is_found_exactly_if_a_resource_is_reachable_from_itself(
    graph: dict[str, frozenset[str]], start: str
) -> None:
    reached: set[str] = set()
    fresh = graph.get(start, frozenset())
    while fresh:
        reached |= fresh
        fresh = frozenset(far for near in fresh for far in graph.get(near, ())) - reached
    found = cycle(graph, start)
    assert bool(found) == (start in reached)
    if found:
        assert (found[0], found[-1]) == (start, start)
        assert all(later in graph[earlier] for earlier, later in pairwise(found))
        assert len({*found}) == len(found) - 1


@pytest.mark.parametrize(
    ("thing", "needs", "is_settled"),
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
def test_a_running_or_finished_resource_waits_for_nothing(thing: Raw, needs: bool, is_settled: bool) -> None:
    assert node(thing, frozenset({A})) == Node(frozenset({A}) if needs else frozenset(), is_settled)


def test_the_message_names_all_members_of_the_cycle() -> None:
    assert describe_cycle((A, B, A)).startswith("a reference cycle: FineTuneJob/a -> FineTuneJob/b -> FineTuneJob/a: ")


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
def test_a_member_of_a_cycle_fails_and_continues_once_the_cycle_is_broken(thing: Raw) -> None:
    (named,) = KINDS[thing["kind"]].references(thing)
    own = Reference(thing["kind"], "a")
    cluster = Cluster(thing, cycle=(own, named, own))
    cluster.settle()
    assert cluster.status["phase"] == "Failed"
    assert cluster.status["message"] == f"{describe_cycle((own, named, own))}. Hint: {BREAK_CYCLE}"
    assert cluster.status["lastFailure"]["message"] == describe_cycle((own, named, own))
    assert cluster.status["lastFailure"]["hint"] == BREAK_CYCLE
    assert cluster.status["lastFailure"]["class"] == "BadSpec"
    assert cluster.condition("Stalled")["status"] == "True"
    assert not cluster.jobs
    assert not cluster.deployments
    cluster.cycle = ()
    cluster.settle()
    assert cluster.status["phase"] == "Waiting"
    assert cluster.condition("Stalled")["status"] == "False"
    assert "lastFailure" not in cluster.status
