"""Many jobs at once on fake nodes: what each costs the API server, and the operator in memory. No times: `make bench-scale`."""

from __future__ import annotations

import pytest

from tests.bench.scale.__main__ import tunesmith_race


@pytest.mark.parametrize("jobs", [20, pytest.param(200, marks=pytest.mark.deep)])
def test_of_many_jobs_at_once_each_costs_five_writes_three_events_and_little_memory_at_most(jobs: int) -> None:
    result = tunesmith_race(jobs)
    assert result.writes / jobs <= 5
    assert result.events / jobs <= 3
    assert result.reads / jobs <= 4
    assert result.rss <= 150
