"""Learning rate of each optimizer step: a linear warm-up, then cosine, linear or constant.

Steps count from 1 in the warm-up (Goyal et al., 2017; Loshchilov and Hutter, 2017 for the cosine), so that every step of a
run has a rate above 0. transformers' schedules count from 0: their first step changes nothing.
"""

from __future__ import annotations

import math

from tunesmith_api.training import Scheduler


def share(done: int, steps: int, warmup: int, scheduler: Scheduler) -> float:
    """Return the share of the peak learning rate in the step after `done` of `steps` steps.

    The warm-up rises to the peak in its last step. Cosine and linear then fall from the peak towards 0, which they would
    reach one step after the last.
    """
    if done < warmup:
        return (done + 1) / warmup
    progress = min(1.0, (done - warmup) / max(1, steps - warmup))
    return {
        Scheduler.COSINE: (1 + math.cos(math.pi * progress)) / 2,
        Scheduler.LINEAR: 1 - progress,
        Scheduler.CONSTANT: 1.0,
    }[scheduler]
