from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.virtual_time import run
from tunesmith_operator.rate_limit import TICK, RateLimiter


async def times(limiter: RateLimiter, gaps: list[float]) -> list[float]:
    """The times at which requests pass that arrive with these gaps, in seconds."""
    loop = asyncio.get_running_loop()

    async def request() -> float:
        await limiter.acquire()
        return loop.time()

    tasks = []
    for gap in gaps:
        await asyncio.sleep(gap)
        tasks.append(asyncio.create_task(request()))
    return list(await asyncio.gather(*tasks))


def test_a_burst_passes_without_delay_and_the_rest_at_the_rate() -> None:
    async def main() -> list[float]:
        return await times(RateLimiter(qps=10, burst=3), [0.0] * 6)

    assert run(main()) == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])


def test_after_a_pause_one_burst_is_available_again() -> None:
    async def main() -> list[float]:
        return await times(RateLimiter(qps=10, burst=2), [0, 0, 60, 0, 0])

    assert run(main()) == pytest.approx([0, 0, 60, 60, 60.1])


@given(
    qps=st.floats(0.5, 100),
    burst=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 2, allow_subnormal=False), min_size=1, max_size=60),
)
def test_no_interval_has_more_requests_than_burst_and_rate_allow(qps: float, burst: int, gaps: list[float]) -> None:
    async def main() -> list[float]:
        return await times(RateLimiter(qps, burst), gaps)

    passed = run(main())
    assert passed == sorted(passed)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            elapsed = passed[last] - passed[first] + TICK  # a wait of less than a tick is not slept
            assert last - first + 1 <= burst + qps * elapsed + 1e-6


def test_nothing_is_sent_during_retry_after() -> None:
    async def main() -> list[float]:
        limiter = RateLimiter(qps=1000, burst=1000)
        await limiter.acquire()
        limiter.pause(7)
        limiter.pause(2)
        return await times(limiter, [0, 1, 7])

    assert run(main()) == pytest.approx([7, 7, 8])
