"""Many jobs at once on fake nodes: what each costs the API server, and the operator in memory. No times: `make bench-scale`."""

from __future__ import annotations

import pytest

from tests.bench.scale.__main__ import jobs_race

JOBS = 200


@pytest.mark.deep
def test_of_many_jobs_at_once_each_costs_five_writes_three_events_and_little_memory_at_most() -> None:
    result = jobs_race(JOBS)
    assert result.writes / JOBS <= 5
    assert result.events / JOBS <= 3
    assert result.reads / JOBS <= 4
    assert result.rss <= 150
