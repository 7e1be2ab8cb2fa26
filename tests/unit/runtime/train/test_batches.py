"""Batches: every row once an epoch, the same order for the same seed, rows of like length together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.train.batches import ByLength, micro_batch, order

lengths = st.lists(st.integers(1, 500), min_size=1, max_size=300)


@given(lengths=lengths, batch_size=st.integers(1, 40), seed=st.integers(0, 2**31), epoch=st.integers(0, 9))
def test_every_row_comes_once_an_epoch(lengths: list[int], batch_size: int, seed: int, epoch: int) -> None:
    assert sorted(order(lengths, batch_size, seed, epoch)) == list(range(len(lengths)))


@given(lengths=lengths, batch_size=st.integers(1, 40))
def test_the_order_depends_on_seed_and_epoch_alone(lengths: list[int], batch_size: int) -> None:
    assert order(lengths, batch_size, 1, 2) == order(lengths, batch_size, 1, 2)


def test_epochs_and_seeds_differ_in_their_order() -> None:
    lengths = [7] * 100
    assert len({tuple(order(lengths, 8, seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_a_smaller_batch_comes_last() -> None:
    made = order([index % 50 for index in range(100)], 16, 0, 0)
    batches = [{index % 50 for index in made[at : at + 16]} for at in range(0, 100, 16)]
    assert [len(made[at : at + 16]) for at in range(0, 100, 16)] == [16] * 6 + [4]
    assert all(max(batch) - min(batch) < 25 for batch in batches)


def test_batches_of_like_length_pad_less_than_random_ones() -> None:
    lengths = [10 + (index * 37) % 90 for index in range(640)]

    def padded(indices: list[int]) -> int:
        return sum(8 * max(lengths[index] for index in indices[at : at + 8]) for at in range(0, len(indices), 8))

    assert padded(order(lengths, 16, 0, 0)) < 1.1 * sum(lengths)
    assert padded(list(range(640))) > 1.4 * sum(lengths)


def test_the_sampler_follows_the_epoch_that_the_trainer_sets() -> None:
    sampler = ByLength([5] * 64, 8, seed=3)
    sampler.set_epoch(2)
    assert list(sampler) == order([5] * 64, 8, 3, 2)
    assert len(sampler) == 64


@pytest.mark.parametrize(
    ("batch", "asked", "rows"), [(16, None, 8), (12, None, 6), (7, None, 7), (11, None, 1), (16, 16, 16), (16, 2, 2)]
)
def test_the_micro_batch_divides_the_batch(batch: int, asked: int | None, rows: int) -> None:
    assert micro_batch(batch, asked) == rows


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"globalBatchSize 16 is not a multiple of training\.microBatchSize 5"):
        micro_batch(16, 5)
