"""The numbers that an adapter adds to a linear layer, and those that it keeps of a token: a row for each tuner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tunesmith_api.tuners import Tuner
from tunesmith_runtime.estimate.architecture import Linear

Count = Callable[[int, Linear], int]
"""Returns a count for an adapter of a rank on a linear layer."""


@dataclass(frozen=True)
class AdapterSize:
    """An adapter on a linear layer."""

    trained: Count
    """Trained parameters."""
    kept: Count = lambda rank, linear: rank
    """Numbers that the adapter keeps of a token until the backward pass, beside the input of the layer."""


def _low_rank(rank: int, linear: Linear) -> int:
    return rank * (linear.inputs + linear.outputs)


def kronecker_size(rank: int, linear: Linear) -> int:
    """Return the numbers of both factors of LoKr, as PEFT divides the sizes of a layer (peft.tuners.lokr.layer)."""
    (rows, large_rows), (columns, large_columns) = _near_square(linear.outputs), _near_square(linear.inputs)
    is_low_rank = rank < max(large_rows, large_columns) / 2
    return rows * columns + (rank * (large_rows + large_columns) if is_low_rank else large_rows * large_columns)


def _near_square(size: int) -> tuple[int, int]:
    """Return the two factors of a size that are nearest to each other, the smaller first."""
    smaller = next(each for each in range(math.isqrt(size), 0, -1) if size % each == 0)
    return smaller, size // smaller


ADAPTER_SIZES: Mapping[Tuner, AdapterSize] = {
    Tuner.LORA: AdapterSize(_low_rank),
    Tuner.QLORA: AdapterSize(_low_rank),
    Tuner.DORA: AdapterSize(
        lambda rank, linear: _low_rank(rank, linear) + linear.outputs
    ),  # a magnitude for each output
    Tuner.ADALORA: AdapterSize(lambda rank, linear: _low_rank(rank, linear) + rank),  # the singular values
    Tuner.OFT: AdapterSize(  # a skew-symmetric matrix for each block of inputs
        lambda rank, linear: linear.inputs * (rank - 1) // 2, kept=lambda rank, linear: linear.inputs
    ),
    Tuner.LOHA: AdapterSize(lambda rank, linear: 2 * _low_rank(rank, linear)),
    Tuner.LOKR: AdapterSize(kronecker_size),
    Tuner.VERA: AdapterSize(lambda rank, linear: rank + linear.outputs),
    Tuner.IA3: AdapterSize(lambda rank, linear: linear.outputs, kept=lambda rank, linear: linear.outputs),
    Tuner.MISS: AdapterSize(lambda rank, linear: rank * linear.outputs),
}
"""The tuners that adapt linear layers."""
