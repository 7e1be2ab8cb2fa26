"""Holding rows out to measure the loss on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

Row = TypeVar("Row")


def split(rows: Sequence[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(rows to train on, rows held out): at least one of each, in their own order; equal for equal seeds.

    Needs two rows; fewer are all trained on.
    """
    count = min(max(1, round(len(rows) * fraction)), len(rows) - 1)
    held_out = set(random.Random(seed).sample(range(len(rows)), max(count, 0)))
    train = [row for index, row in enumerate(rows) if index not in held_out]
    return train, [row for index, row in enumerate(rows) if index in held_out]
