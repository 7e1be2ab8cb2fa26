from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.virtual_time import run
from tunesmith_operator.queue import WorkQueue

KEYS = st.sampled_from("abcd")
SECONDS = st.integers(0, 1000).map(lambda hundredths: hundredths / 100)
TOLERANCE = 1e-6


@dataclass
class Shift:
    """The work that was done: (key, start, end)."""

    queue: WorkQueue[str]
    work: list[tuple[str, float, float]] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)

    async def worker(self, seconds: float) -> None:
        while True:
            key = await self.queue.get()
            assert key not in self.busy
            self.busy.add(key)
            taken = asyncio.get_running_loop().time()
            await asyncio.sleep(seconds)
            self.busy.remove(key)
            self.work.append((key, taken, asyncio.get_running_loop().time()))
            self.queue.done(key)


async def shift(adds: list[tuple[float, str, float]], workers: list[float]) -> Shift:
    """Run a worker for each of `workers`, the seconds that it takes for a key, with `adds`: (time, key, delay)."""
    result = Shift(WorkQueue())
    tasks = [asyncio.create_task(result.worker(seconds)) for seconds in workers]
    loop = asyncio.get_running_loop()
    for when, key, after in adds:
        loop.call_at(when, result.queue.add_after, key, after)
    await asyncio.sleep(1000)
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
    return result


@given(
    adds=st.lists(st.tuples(SECONDS, KEYS, SECONDS), max_size=30),
    workers=st.lists(st.integers(1, 300).map(lambda hundredths: hundredths / 100), min_size=1, max_size=4),
)
def test_every_added_key_is_processed_afterwards_by_one_worker_at_a_time(
    adds: list[tuple[float, str, float]], workers: list[float]
) -> None:
    result = run(shift(adds, workers))
    for when, key, _ in adds:
        assert any(worked == key and taken >= when - TOLERANCE for worked, taken, _ in result.work)
    for worked, taken, _ in result.work:
        assert any(key == worked and taken >= when + after - TOLERANCE for when, key, after in adds)
    added, done = Counter(key for _, key, _ in adds), Counter(key for key, _, _ in result.work)
    assert all(done[key] <= added[key] for key in done)
    assert len(result.queue) == result.queue.delayed == 0


def test_a_key_added_often_while_it_waits_is_handed_out_once() -> None:
    async def main() -> list[str]:
        queue: WorkQueue[str] = WorkQueue()
        for key in "abacab":
            queue.add(key)
        return [await queue.get() for _ in range(len(queue))]

    assert run(main()) == ["a", "b", "c"]


def test_a_key_added_while_a_worker_has_it_is_handed_out_again_behind_the_others() -> None:
    async def main() -> list[str]:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        first = await queue.get()
        for key in "aab":
            queue.add(key)
        assert len(queue) == 1
        queue.done(first)
        return [await queue.get() for _ in range(len(queue))]

    assert run(main()) == ["b", "a"]


def test_an_urgent_key_precedes_all_others_also_if_it_waits_already() -> None:
    async def main() -> list[str]:
        queue: WorkQueue[str] = WorkQueue()
        for key, first in (("a", False), ("b", False), ("c", True), ("b", True), ("c", False), ("d", True)):
            queue.add(key, first)
        assert len(queue) == 4
        return [await queue.get() for _ in range(len(queue))]

    assert run(main()) == ["c", "b", "d", "a"]


def test_the_earliest_of_several_delays_counts() -> None:
    async def main() -> tuple[float, int]:
        queue: WorkQueue[str] = WorkQueue()
        for seconds in (30, 10, 20):
            queue.add_after("a", seconds)
        await queue.get()
        return asyncio.get_running_loop().time(), queue.delayed

    assert run(main()) == (pytest.approx(10), 0)


def test_handing_out_a_key_cancels_its_timer_and_not_later_ones() -> None:
    async def main() -> tuple[int, int]:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 30)
        queue.add("a")
        key = await queue.get()
        left = queue.delayed
        queue.add_after(key, 10)
        queue.done(key)
        return left, queue.delayed

    assert run(main()) == (0, 1)


def test_the_backoff_grows_up_to_a_bound_and_a_success_resets_it() -> None:
    async def main() -> list[float]:
        queue: WorkQueue[str] = WorkQueue(first_delay=1, longest_delay=5, jitter=lambda _, most: most)
        delays = [queue.add_after_failure("a") for _ in range(5)]
        queue.reset_backoff("a")
        return [*delays, queue.add_after_failure("a")]

    assert run(main()) == [1, 2, 4, 5, 5, 1]


@given(failures=st.integers(1, 2000))
def test_the_backoff_stays_within_its_bounds(failures: int) -> None:
    async def main() -> float:
        queue: WorkQueue[str] = WorkQueue(first_delay=0.5, longest_delay=60)
        for _ in range(failures - 1):
            queue.add_after_failure("a")
        return queue.add_after_failure("a")

    delay = min(60.0, 0.5 * 2.0 ** (failures - 1)) if failures < 100 else 60.0
    assert delay / 2 <= run(main()) <= delay


def test_the_longest_wait_and_the_longest_processing_are_reported() -> None:
    async def main() -> tuple[float, float, float]:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        await asyncio.sleep(3)
        queue.add("b")
        await asyncio.sleep(4)
        oldest = queue.oldest_seconds()
        await queue.get()
        await asyncio.sleep(5)
        return oldest, queue.oldest_seconds(), queue.longest_processing_seconds()

    assert run(main()) == pytest.approx((7, 9, 5))


def test_a_delay_below_the_resolution_of_the_event_loop_works() -> None:
    """uvloop's timers have whole milliseconds; a timer of zero is a handle without `when()`."""

    async def main() -> str:
        queue: WorkQueue[str] = WorkQueue()
        for seconds in (0.0003, 5.0, 0.0001):
            queue.add_after("a", seconds)
        return await asyncio.wait_for(queue.get(), 1)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == "a"
