"""Delays until the next reconcile."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.operator.plan.world import START
from tunesmith_operator.plan.requeue import earliest, seconds_until


@pytest.mark.parametrize(
    ("delays", "shortest"), [((), None), ((None,), None), ((None, 3.0, 1.0), 1.0), ((0.0, 2.0), 0.0)]
)
def test_the_shortest_delay_counts_and_none_is_no_delay(delays: tuple[float | None, ...], shortest: float) -> None:
    assert earliest(*delays) == shortest


@pytest.mark.parametrize(("seconds", "left"), [(90, 90.0), (0, 0.0), (-5, 0.0)])
def test_a_moment_in_the_past_is_due_now(seconds: int, left: float) -> None:
    assert seconds_until(START + timedelta(seconds=seconds), START) == left


def test_without_a_moment_there_is_no_delay() -> None:
    assert seconds_until(None, START) is None
