"""Holding rows out to measure the loss on."""

from __future__ import annotations

import random

import numpy
from numpy.typing import NDArray


def held_out_rows(count: int, fraction: float | None, seed: int) -> NDArray[numpy.bool_]:
    """For each of `count` rows whether it is held out, equal for equal seeds. Training and validation both have a row.

    With fewer than two rows, or without a fraction, none is held out.
    """
    if fraction is None:
        return numpy.zeros(count, numpy.bool_)
    held_out = min(max(1, round(count * fraction)), count - 1)
    chosen = random.Random(seed).sample(range(count), max(held_out, 0))
    is_held_out = numpy.zeros(count, numpy.bool_)
    is_held_out[chosen] = True
    return is_held_out
