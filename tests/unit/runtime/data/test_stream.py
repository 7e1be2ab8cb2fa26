"""A stream reads pass after pass in windows, counts the first pass, and begins at any pass."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import islice

import pytest

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data import stream as module
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.example_file import RowWriter
from tunesmith_runtime.data.examples import Example
from tunesmith_runtime.data.row_counts import RowCounts
from tunesmith_runtime.data.stream import Place, Sequence, Stream
from tunesmith_runtime.errors import RunFailure


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_ROWS", 4)


encoded: list[int] = []
"""The rows that were encoded."""


def encode(writer: RowWriter, counts: RowCounts) -> None:
    """Ten rows, and one that is dropped after each third of them, from where the counts stand on."""
    for row in range(counts.reading.rows, 10):
        counts.reading.rows += 1
        if row % 3 == 2:
            counts.drop(DropReason.TOO_LONG, 99)
        encoded.append(row)
        writer.write([Example([row], [row])])


def arranged(examples: list[Example], window: str) -> list[Sequence]:
    return [{"input_ids": [int(window.replace(" ", "")), *example.input_ids]} for example in examples]


def empty(counts: RowCounts) -> RunFailure:
    return RunFailure(FailureClass.EMPTY_DATASET, f"dropped {counts.dropped.total()}")


def read(stream: Stream, start: Place, windows: int) -> list[tuple[int, list[list[int]]]]:
    found = islice(stream.windows(start), windows)
    return [(place.passes, [each["input_ids"] for each in sequences]) for place, sequences in found]


def test_windows_follow_the_rows_pass_after_pass() -> None:
    passes = [
        (0, [[0, 0], [0, 1], [0, 2], [0, 3]]),
        (0, [[1, 4], [1, 5], [1, 6], [1, 7]]),
        (0, [[2, 8], [2, 9]]),
        (1, [[10, 0], [10, 1], [10, 2], [10, 3]]),
    ]
    assert read(Stream(encode, arranged, empty), Place(), 4) == passes


@pytest.mark.parametrize("window", range(7))
def test_a_stream_begins_at_any_window_encodes_nothing_before_it_and_counts_all(window: int) -> None:
    stream = Stream(encode, arranged, empty)
    places = [place for place, _ in islice(stream.windows(Place()), 7)]
    assert [(place.passes, place.window, place.sequences) for place in places] == [
        (0, 0, 0), (0, 1, 4), (0, 2, 8), (1, 0, 10), (1, 1, 14), (1, 2, 18), (2, 0, 20)
    ]  # fmt: skip
    kept = Place.model_validate_json(places[window].model_dump_json(by_alias=True))
    again = Stream(encode, arranged, empty)
    encoded.clear()
    assert read(again, kept, 9 - window) == read(stream, Place(), 9)[window:]
    assert encoded[0] == 4 * (window % 3)
    assert again.counts == stream.counts
    assert again.counts.dropped == Counter({DropReason.TOO_LONG: 3})


def test_a_place_of_an_earlier_version_begins_at_its_pass() -> None:
    stream = Stream(encode, arranged, empty)
    place = Place.model_validate_json('{"passes": 1, "sequences": 10, "counts": {"kept": 10}}')
    assert read(stream, place, 1) == [(1, [[10, 0], [10, 1], [10, 2], [10, 3]])]
    assert stream.counts == RowCounts(10)


def test_counts_end_with_the_window_that_was_given_last() -> None:
    stream = Stream(encode, arranged, empty)
    windows = stream.windows(Place())
    counted = []
    for _ in range(3):
        next(windows)
        counted.append((stream.counts.kept, stream.counts.dropped.total()))
    assert counted == [(4, 1), (8, 2), (10, 3)]


def test_data_of_which_no_row_is_kept_is_refused() -> None:
    def drop(_: RowWriter, counts: RowCounts) -> None:
        for _row in range(2):
            counts.drop(DropReason.TOO_LONG)

    with pytest.raises(RunFailure, match="dropped 2"):
        next(Stream(drop, arranged, empty).windows(Place()))


def test_a_bad_row_ends_the_stream_after_the_rows_before_it() -> None:
    def bad(writer: RowWriter, counts: RowCounts) -> None:
        encode(writer, counts)
        raise RunFailure(FailureClass.BAD_ROW, "train.jsonl line 11: is no object")

    windows = Stream(bad, arranged, empty).windows(Place())
    assert [len(sequences) for _, sequences in islice(windows, 2)] == [4, 4]
    with pytest.raises(RunFailure, match="line 11"):
        next(windows)


def test_a_stream_that_nobody_reads_any_more_leaves_no_thread() -> None:
    before = threading.active_count()
    windows = Stream(encode, arranged, empty).windows(Place())
    next(windows)
    assert threading.active_count() == before + 1
    windows.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
