"""Measures the time that sampling takes."""

from __future__ import annotations

import torch
from torch import Tensor

from tunesmith_runtime.train.stopwatch import Stopwatch


class SamplingClock(Stopwatch):
    """Measures which share of the time between two steps sampling takes."""

    sampling = Stopwatch.running

    def next_step(self) -> Tensor:
        """Begin a step; return the share in the step before, (1,), or (0,) if that sampled nothing."""
        share = self.share()
        return torch.tensor([share] if share else [])
