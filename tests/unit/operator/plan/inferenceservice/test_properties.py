"""Random lives of a service: the last ready version is never lost."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.operator.plan.inferenceservice.support import (
    AUTOSCALED,
    GATED,
    NO_IMAGE,
    TUNED_MODEL,
    Life,
    check,
    children,
    version,
)
from tunesmith_operator.plan.types import Raw

specs = st.sampled_from(
    [{"maxModelLength": 128}, {"maxModelLength": 256}, {"replicas": 0}, {"replicas": 1}, {"replicas": 3}, {"suspend": True},
     {"suspend": False}, AUTOSCALED, {"autoscaling": None}, {"rollout": {"strategy": "Recreate"}}, {"restart": "a"}]
)  # fmt: skip


def act(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, tuple[Any, ...]]]:
    return st.tuples(st.just(name), st.tuples(*arguments))


OWNERS = frozenset({"edit", "retune"})
"""What asks for something else."""


steady = settings(
    max_examples=int(os.environ.get("TUNESMITH_EXAMPLES", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


starts = st.sampled_from([{"model": TUNED_MODEL}, GATED, {"model": TUNED_MODEL, "replicas": 2, **AUTOSCALED}])


acts = st.one_of(
    act("edit", specs),
    act("retune", st.sampled_from(["d2", "e5"]), st.sampled_from([None, "Passed", "Failed"])),
    act("deploy", st.booleans(), st.booleans()),
    act("pod", st.sampled_from([{}, NO_IMAGE]), st.booleans()),
    act("lose", children),
    act("tamper", st.just("evil")),
    act("configure", st.sampled_from(["registry/runtime:1", "registry/runtime:2"])),
    act("die"),
    act("wait", st.just(60)),
)


@given(start=starts, story=st.lists(acts, max_size=12))
@steady
def test_whatever_happens_the_last_ready_version_is_not_lost(start: Raw, story: list[Any]) -> None:
    """And the plan comes to rest; what was tampered with is not served; and nothing is tried again that was given up."""
    life = Life(start)
    life.cluster.settle()
    for name, arguments in story:
        served, given_up = life.cluster.status.get("version"), life.cluster.status.get("rolledBack")
        getattr(life, name)(*arguments)
        life.cluster.settle(turns=12)
        check(life)
        known = f"support-{served}" in life.cluster.revisions
        if given_up and known and name not in OWNERS and life.cluster.deployments:
            assert version(life.cluster) != given_up["version"], "not tried again"
