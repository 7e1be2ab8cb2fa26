"""Mixing by weight: the shares are those of the weights, and a pass keeps its number of rows."""

from __future__ import annotations

import numpy
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.data.mixing import draw, sample_mask, shares

weights = st.floats(0.001, 1000)
sets = st.lists(st.tuples(st.integers(1, 200), weights), min_size=1, max_size=8)


@given(sets=sets, seed=st.integers(0, 5))
def test_a_pass_has_as_many_rows_as_there_are_in_the_shares_of_the_weights(
    sets: list[tuple[int, float]], seed: int
) -> None:
    rows, weight = [count for count, _ in sets], [each for _, each in sets]
    drawn = draw(rows, weight, seed)
    assert sum(each.used for each in drawn) == sum(rows)
    for each, count, share in zip(drawn, rows, weight, strict=True):
        assert abs(each.used - sum(rows) * share / sum(weight)) < 1
        assert each.rows == count
        assert each.used - each.repeated + each.left == count
        assert each.times.max() - each.times.min() <= 1


@given(total=st.integers(0, 10_000), weight=st.lists(weights, min_size=1, max_size=8))
def test_shares_add_up(total: int, weight: list[float]) -> None:
    found = shares(total, weight)
    assert sum(found) == total
    assert min(found) >= 0


@given(count=st.integers(0, 100), most=st.integers(1, 120), seed=st.integers(0, 5))
def test_a_sample_has_its_size_and_depends_on_the_seed_alone(count: int, most: int, seed: int) -> None:
    mask = sample_mask(count, most, seed)
    assert (len(mask), int(mask.sum())) == (count, min(count, most))
    assert numpy.array_equal(mask, sample_mask(count, most, seed))
