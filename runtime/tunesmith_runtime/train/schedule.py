"""Learning rate of each optimizer step: a linear warm-up, then one of the schedules that transformers has too.

Steps count from 1 in the warm-up (Goyal et al., 2017), so that every step of a run has a rate above 0. transformers' schedules
count from 0: their first step changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunesmith_api.training import Scheduler, SchedulerOptions, Training

TIMESCALE = 10_000
"""Steps after which inverseSqrt has fallen to 1/√2 where there is no warm-up, as in transformers."""


@dataclass(frozen=True)
class Schedule:
    """A schedule with its settings, as in the API. All values are JSON values, so that the arguments of a Trainer can
    hold it."""

    scheduler: str = Scheduler.COSINE
    floor: float = 0.0
    """Lowest rate, as a share of the peak."""
    power: float = 2.0
    cycles: int = 2
    decay_ratio: float = 0.1


def schedule_of(training: Training, peak: float) -> Schedule:
    """Return the schedule of a job whose highest rate is `peak`."""
    options = training.scheduler_options or SchedulerOptions()
    return Schedule(
        str(training.scheduler),
        (training.min_learning_rate or 0.0) / peak,
        options.power,
        options.cycles,
        options.decay_ratio,
    )


def share(done: int, steps: int, warmup: int, schedule: Schedule) -> float:
    """Return the share of the peak learning rate in the step after `done` of `steps` steps.

    The warm-up rises to the peak in its last step. Schedules then fall from the peak towards the floor, which most would
    reach one step after the last.
    """
    if done < warmup:
        return (done + 1) / warmup
    return schedule.floor + (1 - schedule.floor) * _fall(done, steps, warmup, schedule)


def _fall(done: int, steps: int, warmup: int, schedule: Schedule) -> float:
    """The part of the way from the floor to the peak, after the warm-up."""
    progress = min(1.0, (done - warmup) / max(1, steps - warmup))
    match Scheduler(schedule.scheduler):
        case Scheduler.CONSTANT:
            return 1.0
        case Scheduler.LINEAR:
            return 1 - progress
        case Scheduler.COSINE:
            return _cosine(progress)
        case Scheduler.POLYNOMIAL:
            return (1 - progress) ** schedule.power
        case Scheduler.COSINE_WITH_RESTARTS:
            return _cosine(schedule.cycles * progress % 1)
        case Scheduler.INVERSE_SQRT:
            timescale = warmup or TIMESCALE
            return math.sqrt(timescale / (timescale + done - warmup))
        case Scheduler.WARMUP_STABLE_DECAY:
            decay = math.ceil(schedule.decay_ratio * steps)
            return _cosine(max(0, done - (steps - decay)) / decay)


def _cosine(progress: float) -> float:
    """A half wave from 1 to 0 (Loshchilov and Hutter, 2017)."""
    return (1 + math.cos(math.pi * progress)) / 2
