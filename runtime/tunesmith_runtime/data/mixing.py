"""Mixing data sets by weight: rows of some are repeated, rows of others are left out; a pass keeps its number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.random import MT19937, RandomState, SeedSequence
from numpy.typing import NDArray


@dataclass(frozen=True)
class Draw:
    """How often each row of a data set is in a pass."""

    times: NDArray[numpy.int32]

    @property
    def rows(self) -> int:
        """Rows there are."""
        return len(self.times)

    @property
    def used(self) -> int:
        """Rows of the data set in a pass, with repetitions."""
        return int(self.times.sum())

    @property
    def left(self) -> int:
        """Rows that are in no pass."""
        return int((self.times == 0).sum())

    @property
    def repeated(self) -> int:
        """Rows of a pass that are there already."""
        return self.used - (self.rows - self.left)


def draw(rows: Sequence[int], weights: Sequence[float], seed: int) -> list[Draw]:
    """Draw as many rows as there are, by the share of each data set's weight: `rows` are the rows of each, none is 0.

    Each row of a data set is drawn equally often, except for the rest, which the seed decides.
    """
    return [
        Draw(_times(count, share, _random(seed, index)))
        for index, (count, share) in enumerate(zip(rows, shares(sum(rows), weights), strict=True))
    ]


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """Divide `total` by weights (the method of the largest remainder): each share is off by less than 1."""
    exact = [total * weight / sum(weights) for weight in weights]
    floors = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda index: floors[index] - exact[index])
    for index in by_remainder[: total - sum(floors)]:
        floors[index] += 1
    return floors


def _times(count: int, share: int, random: RandomState) -> NDArray[numpy.int32]:
    each, rest = divmod(share, count)
    times = numpy.full(count, each, numpy.int32)
    times[random.permutation(count)[:rest]] += 1
    return times


def sample_mask(count: int, most: int, seed: int) -> NDArray[numpy.bool_]:
    """For each of `count` rows whether it is among `most` rows that the seed draws."""
    mask = numpy.zeros(count, numpy.bool_)
    mask[_random(seed).permutation(count)[:most]] = True
    return mask


def _random(*seed: int) -> RandomState:
    """A generator whose numbers are the same in every version of NumPy."""
    return RandomState(MT19937(SeedSequence(seed)))
