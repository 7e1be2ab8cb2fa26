"""Rows held out for validation."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.data.split import held_out_rows


@given(count=st.integers(2, 200), fraction=st.floats(0.001, 0.999), seed=st.integers(0, 2**32))
def test_a_split_leaves_rows_on_both_sides_and_is_the_same_for_the_same_seed(
    count: int, fraction: float, seed: int
) -> None:
    is_held_out = held_out_rows(count, fraction, seed)
    assert len(is_held_out) == count
    assert 0 < is_held_out.sum() < count
    assert (is_held_out == held_out_rows(count, fraction, seed)).all()


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_rows_are_never_held_out(count: int) -> None:
    assert held_out_rows(count, 0.9, 0).tolist() == [False] * count


def test_releases_hold_out_the_same_rows() -> None:
    """A run that an earlier release has begun is resumed with the same training rows."""
    assert numpy.flatnonzero(held_out_rows(20, 0.2, 42)).tolist() == [0, 3, 7, 8]
