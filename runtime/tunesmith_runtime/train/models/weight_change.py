"""Checks that training changed the model: a run without effect fails as NothingLearned instead of publishing its base."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import hardshrink

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure

INTEGERS = {2: torch.int16, 4: torch.int32}
"""Integer type by the size in bytes of a number format, for bit patterns."""

CHUNK = 1 << 16
"""Numbers per chunk of a checksum: few enough for the cache of a core."""

ROUNDING = 2.0**-24
"""Half the distance of 1 to the next float32. Rounding removes an update below this share of the largest weight."""


def check_learned(trained: nn.Module, has_changed: Callable[[], bool], steps: int) -> None:
    """Check the weights after the last step. `has_changed` returns whether they differ from those before the first.

    Raises RunFailure (Diverged, NothingLearned).
    """
    weights = ((name, weight) for name, weight in trained.named_parameters() if weight.requires_grad)
    if not_finite := [name for name, weight in weights if not is_finite(weight)]:
        raise RunFailure(
            FailureClass.DIVERGED, f"{not_finite[0]} has NaN or infinite weights after the last step, step {steps}"
        )
    if not has_changed():
        raise RunFailure(
            FailureClass.NOTHING_LEARNED, f"the weights after {steps} steps compute the same as those before the first"
        )


@torch.no_grad()
def is_finite(weight: Tensor) -> bool:
    """Return whether all numbers are finite. The minimum and maximum of a tensor with a NaN are NaN."""
    low, high = weight.aminmax()
    return bool(torch.isfinite(high - low))


def stored_bits(weight: Tensor, dtype: torch.dtype, floor: float) -> int:
    """Return a checksum of `weight` as stored in `dtype`: the sum of its bit patterns. Numbers up to `floor` count as zero."""
    chunks = weight.detach().cpu().reshape(-1).split(CHUNK)
    stored = (hardshrink(chunk, floor).to(dtype).view(INTEGERS[dtype.itemsize]) for chunk in chunks)
    return sum(int(numbers.sum(dtype=torch.int64)) for numbers in stored)


def has_effect(update: Tensor, weight: Tensor) -> bool:
    """Return whether adding `update` to `weight` changes a layer by more than the rounding of float32."""
    return bool(update.abs().max() > ROUNDING * weight.abs().max())
