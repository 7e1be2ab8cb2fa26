"""Measures the time that sampling takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class SamplingClock:
    """Measures which share of the time between two steps sampling takes."""

    def __init__(self) -> None:
        self._step_began, self._seconds = time.monotonic(), 0.0

    def next_step(self) -> Tensor:
        """Begin a step; return the share in the step before, (1,), or (0,) if that sampled nothing."""
        now = time.monotonic()
        seconds, whole = self._seconds, now - self._step_began
        self._step_began, self._seconds = now, 0.0
        return torch.tensor([seconds / whole] if seconds else [])

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Within the block, the time counts as sampling."""
        began = time.monotonic()
        yield
        self._seconds += time.monotonic() - began
