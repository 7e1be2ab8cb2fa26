"""Eviction: the least recently used files, none that a pod uses, and no more than necessary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.cache.eviction import Blob, choose_evictions

OLD, MIDDLE, NEW = Blob("old", 10, 1.0), Blob("middle", 20, 2.0), Blob("new", 30, 3.0)
ALL = (NEW, OLD, MIDDLE)
PLENTY = 10**9


def test_nothing_is_evicted_while_everything_fits() -> None:
    assert choose_evictions(ALL, {"next": 40}, 100, PLENTY) == []
    assert choose_evictions(ALL, {"next": 40}, None, 40) == []


def test_the_least_recently_used_files_go_first_and_no_more_than_necessary() -> None:
    assert choose_evictions(ALL, {"next": 41}, 100, PLENTY) == [OLD]
    assert choose_evictions(ALL, {"next": 51}, 100, PLENTY) == [OLD, MIDDLE]
    assert choose_evictions(ALL, {"next": 31}, None, 30) == [OLD], "the disk bounds the cache too"


def test_files_that_pods_use_stay() -> None:
    assert choose_evictions(ALL, {"next": 41, "old": 10}, 100, PLENTY) == [MIDDLE]


def test_what_other_pods_are_about_to_write_counts() -> None:
    assert choose_evictions(ALL, {"next": 20, "other": 21}, 100, PLENTY) == [OLD]


def test_files_that_cannot_fit_evict_nothing() -> None:
    assert choose_evictions(ALL, {"next": 101}, 100, PLENTY) is None
    assert choose_evictions(ALL, {"next": 50, "new": 30, "middle": 20}, 90, PLENTY) is None


names = st.sampled_from("abcdefgh")
sizes = st.integers(1, 50)
blobs = st.dictionaries(names, st.tuples(sizes, st.floats(0, 9)))


@given(blobs, st.dictionaries(names, sizes), st.none() | st.integers(0, 300), st.integers(0, 300))
def test_the_leased_files_fit_after_every_eviction(
    cached: dict[str, tuple[int, float]], leased: dict[str, int], limit: int | None, free: int
) -> None:
    there = [Blob(name, size, used) for name, (size, used) in cached.items()]
    leased = {name: cached[name][0] if name in cached else size for name, size in leased.items()}
    evicted = choose_evictions(there, leased, limit, free)
    growth = sum(size for name, size in leased.items() if name not in cached)
    kept = sum(blob.size_bytes for blob in there if blob.sha256 in leased)
    total = sum(blob.size_bytes for blob in there)
    if evicted is None:
        most_freed = total - kept
        assert (limit is not None and kept + growth > limit) or growth > free + most_freed
        return
    freed = sum(blob.size_bytes for blob in evicted)
    assert not {blob.sha256 for blob in evicted} & set(leased)
    assert limit is None or total - freed + growth <= limit
    assert growth <= free + freed
