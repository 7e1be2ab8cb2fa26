"""Which rows go into which batch: random, with rows of like length together so that little is padded."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from tunesmith_runtime.data.examples import IGNORED, Example

WINDOW = 8
"""Batches that are sorted by length together. Larger pads less and mixes less."""


def order(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[int]:
    """Indices of all rows for one epoch; each run of `batch_size` is a batch, sorted by length so that micro batches are alike.

    It depends on its arguments alone, so that a resumed run sees the rows in the same order.
    """
    choose = random.Random(f"{seed} {epoch}")
    shuffled = choose.sample(range(len(lengths)), len(lengths))
    ordered: list[int] = []
    for start in range(0, len(shuffled), batch_size * WINDOW):
        window = sorted(shuffled[start : start + batch_size * WINDOW], key=lambda index: lengths[index])
        batches = [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
        smaller = [batches.pop()] if len(batches[-1]) < batch_size else []
        choose.shuffle(batches)
        ordered += [index for batch in batches + smaller for index in batch]
    return ordered


def blank(token: int) -> Example:
    """A row that fills up a batch and teaches nothing: no token of it has a label."""
    return Example([token, token], [IGNORED, IGNORED])


class ByLength(Sampler[int]):
    """`order` as a sampler; the Trainer tells it the epoch.

    Processes that train together take micro batches in turn, so that a step sees the rows that one process would see.
    All must have equally many: `blank` is the index of the row that the last batch of an epoch is filled up with.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, blank: int | None = None) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = lengths, batch_size, seed, 0
        self._filling = [] if blank is None else [blank] * (-len(lengths) % batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch, and when it resumes within one."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(order(self._lengths, self._batch_size, self._seed, self._epoch) + self._filling)

    def __len__(self) -> int:
        return len(self._lengths) + len(self._filling)


def micro_batch(global_batch_size: int, asked: int | None, devices: int = 1, most: int = 8) -> int:
    """Rows per device and forward pass: what is asked for, else the largest divisor of a device's share of the batch
    that is at most `most`.

    Raises ValueError where the devices, or what is asked for, do not divide the batch.
    """
    share = global_batch_size // devices
    if global_batch_size % devices:
        raise ValueError(f"training.globalBatchSize {global_batch_size} is not a multiple of the {devices} devices")
    if asked is None:
        return max(size for size in range(1, min(most, share) + 1) if share % size == 0)
    if share % asked:
        on = f" on each of {devices} devices" if devices > 1 else ""
        raise ValueError(
            f"training.globalBatchSize {global_batch_size} is not a multiple of training.microBatchSize {asked}{on}"
        )
    return asked
