"""Counts of rows and of keys, in bounded memory."""

from __future__ import annotations

from collections import Counter

from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.row_counts import MAX_DISTINCT, MAX_KEYS, OTHER_KEYS, RowCounts, count_ignored, ignored_keys


def test_keys_that_are_data_are_counted_in_bounded_memory() -> None:
    counts = Counter[str]()
    for number in range(3 * MAX_DISTINCT):
        count_ignored(counts, ["id", f"key {number}"])
    assert len(counts) <= MAX_DISTINCT + 1
    assert counts["id"] == 3 * MAX_DISTINCT
    assert counts.total() == 6 * MAX_DISTINCT
    entries = ignored_keys(counts)
    assert (entries[0].key, entries[-1].key, len(entries)) == ("id", OTHER_KEYS, MAX_KEYS)
    assert sum(entry.count for entry in entries) == counts.total()


def test_of_rows_that_are_too_long_the_shortest_and_the_longest_are_known() -> None:
    counts = RowCounts()
    counts.drop(DropReason.EMPTY_ANSWER)
    assert counts.too_long is None
    for tokens in (70, 50, 90):
        counts.drop(DropReason.TOO_LONG, tokens)
    assert counts.too_long == (50, 90)
    assert counts.dropped == {DropReason.EMPTY_ANSWER: 1, DropReason.TOO_LONG: 3}
