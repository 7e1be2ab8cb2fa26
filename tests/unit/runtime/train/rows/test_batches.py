"""Batches: every row once per epoch, the same order for the same seed, rows of similar length together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.batches import micro_batch
from tunesmith_runtime.data.example_file import example_lengths, open_examples, write_examples
from tunesmith_runtime.data.examples import IGNORED, Example
from tunesmith_runtime.train.rows.batches import ByLength, Groups, append_blank, order, weights_of

lengths = st.lists(st.integers(1, 500), min_size=1, max_size=300)


@given(lengths=lengths, batch_size=st.integers(1, 40), seed=st.integers(0, 2**31), epoch=st.integers(0, 9))
def test_every_row_occurs_once_per_epoch(lengths: list[int], batch_size: int, seed: int, epoch: int) -> None:
    assert sorted(order(lengths, batch_size, seed, epoch)) == list(range(len(lengths)))


@given(lengths=lengths, batch_size=st.integers(1, 40))
def test_the_order_depends_on_seed_and_epoch_alone(lengths: list[int], batch_size: int) -> None:
    assert order(lengths, batch_size, 1, 2) == order(lengths, batch_size, 1, 2)


def test_the_order_differs_between_epochs_and_seeds() -> None:
    lengths = [7] * 100
    assert len({tuple(order(lengths, 8, seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_an_incomplete_batch_is_the_last() -> None:
    ordered = order([index % 50 for index in range(100)], 16, 0, 0)
    batches = [{index % 50 for index in ordered[at : at + 16]} for at in range(0, 100, 16)]
    assert [len(ordered[at : at + 16]) for at in range(0, 100, 16)] == [16] * 6 + [4]
    assert all(max(batch) - min(batch) < 25 for batch in batches)


def test_batches_by_length_pad_less_than_random_batches() -> None:
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
    ("batch", "requested", "rows"),
    [(16, None, 8), (12, None, 6), (7, None, 7), (11, None, 1), (16, 16, 16), (16, 2, 2)],
)
def test_the_micro_batch_divides_the_batch(batch: int, requested: int | None, rows: int) -> None:
    assert micro_batch(batch, requested) == rows


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"globalBatchSize 16 is not a multiple of training\.microBatchSize 5"):
        micro_batch(16, 5)


@given(
    lengths=lengths,
    world=st.sampled_from([2, 3, 4]),
    rows=st.integers(1, 4),
    accumulated=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
def test_processes_see_in_each_step_the_rows_that_a_single_process_sees(
    lengths: list[int], world: int, rows: int, accumulated: int, epoch: int
) -> None:
    """As accelerate shards a sampler's batches (BatchSamplerShard): process r takes every world-th, from the r-th on."""
    batch, blank = world * rows * accumulated, len(lengths)
    sampler = ByLength(lengths, batch, seed=3, blank=blank)
    sampler.set_epoch(epoch)
    seen = list(sampler)
    assert len(seen) == len(sampler)
    micro = [seen[at : at + rows] for at in range(0, len(seen), rows)]
    shares = [micro[rank::world] for rank in range(world)]
    assert len({len(share) for share in shares}) == 1, "all processes have the same number of batches"
    together = [
        sorted(row for share in shares for part in share[at : at + accumulated] for row in part if row != blank)
        for at in range(0, len(shares[0]), accumulated)
    ]
    alone = order(lengths, batch, 3, epoch)
    assert together == [sorted(alone[at : at + batch]) for at in range(0, len(alone), batch)]


def test_a_blank_row_has_no_label(tmp_path: Path) -> None:
    with write_examples(tmp_path / "train.arrow") as writer:
        writer.write([Example([1, 2, 3], [IGNORED, 2, 3])])
    examples = append_blank(open_examples(tmp_path / "train.arrow"), 7)
    assert examples.to_list() == [
        {"input_ids": [1, 2, 3], "labels": [IGNORED, 2, 3]},
        {"input_ids": [7, 7], "labels": [IGNORED, IGNORED]},
    ]
    assert list(example_lengths(examples.data)) == [3, 2]


@pytest.mark.parametrize(("batch", "requested", "devices", "rows"), [(16, None, 2, 8), (16, None, 4, 4), (12, 3, 2, 3)])
def test_the_micro_batch_divides_the_share_of_a_device(
    batch: int, requested: int | None, devices: int, rows: int
) -> None:
    assert micro_batch(batch, requested, devices) == rows


@pytest.mark.parametrize(
    ("requested", "devices", "wrong"),
    [(None, 3, "not a multiple of the 3 devices"), (8, 4, r"training\.microBatchSize 8 on each of 4 devices")],
)
def test_devices_that_do_not_divide_the_batch_are_refused(requested: int | None, devices: int, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        micro_batch(16, requested, devices)


def test_the_rows_of_a_step_are_whole_groups() -> None:
    sampler = Groups([3, 1, 2, 5, 4], prompts=2, group=4, seed=0)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        indices = list(sampler)
        groups = [indices[start : start + 4] for start in range(0, 20, 4)]
        assert all(group == list(range(group[0], group[0] + 4)) and group[0] % 4 == 0 for group in groups)
        assert sorted(indices) == list(range(20))
    assert len(sampler) == 20


def test_processes_take_whole_groups_of_the_same_steps() -> None:
    settings: dict[str, Any] = {"prompts": 4, "group": 4, "seed": 0}
    alone = list(Groups([3, 1, 2, 5, 4], **settings))
    together = list(Groups([3, 1, 2, 5, 4], **settings, processes=2, micro_batch=2))
    assert len(together) == len(Groups([3, 1, 2, 5, 4], **settings, processes=2, micro_batch=2)) == 32
    for step, rows in ((0, alone[:16]), (1, alone[16:] + [20, 21, 22, 23] * 3)):
        micro_batches = [together[step * 16 + start :][:2] for start in range(0, 16, 2)]
        shares = [[row for batch in micro_batches[process::2] for row in batch] for process in range(2)]
        assert shares == [rows[:8], rows[8:]]


def test_a_batch_has_weights_where_its_rows_have_the_column() -> None:
    ids = {"input_ids": [1, 2, 3]}
    found = weights_of([{**ids, "weights": None}, {"input_ids": [4, 5], "weights": [0.5, 2.0]}])
    assert {name: value.tolist() for name, value in found.items()} == {"weights": [[1, 1, 1], [0.5, 2, 0]]}
    assert weights_of([ids, ids]) == {}


def test_a_blank_row_follows_rows_with_weights(tmp_path: Path) -> None:
    with write_examples(tmp_path / "train.arrow") as writer:
        writer.write([Example([1, 2], [1, 2], weights=[1.0, 0.5])])
    filled = append_blank(open_examples(tmp_path / "train.arrow"), 0)
    assert filled["weights"] == [[1.0, 0.5], None]
