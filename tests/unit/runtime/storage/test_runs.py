"""Runs of parts: every missing part is downloaded once, whatever the streams do, and one stream needs one request."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.storage.s3.runs import Run, Runs, consecutive


@given(missing=st.sets(st.integers(0, 60)))
def test_runs_of_consecutive_parts_are_as_long_as_possible(missing: set[int]) -> None:
    runs = consecutive(sorted(missing))
    assert [number for run in runs for number in range(run.next, run.stop)] == sorted(missing)
    assert all(before.stop < after.next for before, after in pairwise(runs))


@given(missing=st.sets(st.integers(0, 60)), data=st.data())
def test_each_missing_part_is_begun_once_by_any_number_of_streams(missing: set[int], data: st.DataObject) -> None:
    runs, begun = Runs(sorted(missing)), list[int]()
    streams: list[Run | None] = [None] * data.draw(st.integers(1, 5))
    while True:
        stream = data.draw(st.integers(0, len(streams) - 1))
        run = streams[stream] = streams[stream] or runs.take()
        if run is None:
            break
        number = runs.begin(run)
        if number is None:
            streams[stream] = None
        else:
            begun.append(number)
    for run in streams:  # those that are still at work
        while run is not None and (number := runs.begin(run)) is not None:
            begun.append(number)
    assert sorted(begun) == sorted(missing)


def test_a_single_stream_has_one_run() -> None:
    runs = Runs(range(100))
    run = runs.take()
    assert run == Run(0, 100)
    assert [runs.begin(run) for _ in range(101)] == [*range(100), None]
    assert runs.take() is None


def test_a_further_stream_takes_the_second_half_of_the_longest_run() -> None:
    runs = Runs([*range(10), *range(20, 24)])
    first, second = runs.take(), runs.take()
    assert (first, second) == (Run(0, 10), Run(20, 24))
    assert runs.take() == Run(5, 10)
    assert first == Run(0, 5)


def test_after_a_stop_no_part_is_begun() -> None:
    runs = Runs([0, 1, 2, 5])
    run = runs.take()
    assert run is not None
    runs.stop()
    assert runs.begin(run) is None
    assert runs.take() is None
