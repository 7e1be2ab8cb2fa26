"""The learning rate of each step is above 0, and at its peak after the warm-up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests import tinymodel
from tests.unit.runtime.train.support import make_run
from tunesmith_api.training import Scheduler, Training
from tunesmith_runtime import train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.schedule import Schedule, schedule_of, share

SCHEDULERS = tuple(Scheduler)


def rates(schedule: Schedule, steps: int, warmup: int) -> list[float]:
    return [share(done, steps, warmup, schedule) for done in range(steps)]


@given(
    scheduler=some.sampled_from(SCHEDULERS),
    steps=some.integers(1, 300),
    ratio=some.floats(0, 1),
    floor=some.floats(0, 1),
    power=some.floats(0.1, 2),
    cycles=some.integers(1, 10),
    decay=some.floats(0.01, 1),
)
def test_every_rate_is_positive_and_between_floor_and_peak(
    scheduler: Scheduler, steps: int, ratio: float, floor: float, power: float, cycles: int, decay: float
) -> None:
    warmup = round(steps * ratio)
    found = rates(Schedule(scheduler, floor, power, cycles, decay), steps, warmup)
    assert min(found) > 0
    assert max(found) <= 1 + 1e-9
    assert found[:warmup] == sorted(found[:warmup])
    assert min(found[warmup:], default=1) >= floor - 1e-9


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_single_step_has_the_peak_rate(scheduler: Scheduler) -> None:
    assert share(0, steps=1, warmup=1, schedule=Schedule(scheduler)) == 1.0


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (Scheduler.CONSTANT, [0.5, 1, 1, 1, 1, 1]),
        (Scheduler.LINEAR, [0.5, 1, 1, 0.75, 0.5, 0.25]),
        (Scheduler.COSINE, [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
        (Scheduler.POLYNOMIAL, [0.5, 1, 1, 0.5625, 0.25, 0.0625]),
        (Scheduler.COSINE_WITH_RESTARTS, [0.5, 1, 1, 0.5, 1, 0.5]),
        (Scheduler.INVERSE_SQRT, [0.5, 1, 1, 0.816497, 0.707107, 0.632456]),
        (Scheduler.WARMUP_STABLE_DECAY, [0.5, 1, 1, 1, 1, 0.5]),
    ],
)
def test_the_rate_rises_over_the_warm_up_and_then_follows_the_schedule(
    scheduler: Scheduler, expected: list[float]
) -> None:
    assert rates(Schedule(scheduler, decay_ratio=0.3), 6, 2) == pytest.approx(expected, abs=1e-6)


THEIRS: dict[Scheduler, tuple[str, dict[str, Any]]] = {
    Scheduler.COSINE: ("cosine_with_min_lr", {"min_lr_rate": 0.2}),
    Scheduler.POLYNOMIAL: ("polynomial", {"lr_end": 0.2, "power": 1.5}),
    Scheduler.WARMUP_STABLE_DECAY: ("warmup_stable_decay", {"num_decay_steps": 6, "min_lr_ratio": 0.2}),
}
"""Schedules of transformers with a lowest rate -> name and options."""
THEIRS_TO_ZERO: dict[Scheduler, tuple[str, dict[str, Any]]] = {
    Scheduler.LINEAR: ("linear", {}),
    Scheduler.COSINE: ("cosine", {}),
    Scheduler.CONSTANT: ("constant_with_warmup", {}),
    Scheduler.COSINE_WITH_RESTARTS: ("cosine_with_restarts", {"num_cycles": 3}),
    Scheduler.INVERSE_SQRT: ("inverse_sqrt", {}),
}


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize(
    ("scheduler", "name", "options", "floor"),
    [
        *((scheduler, *theirs, 0.2) for scheduler, theirs in THEIRS.items()),
        *((scheduler, *theirs, 0.0) for scheduler, theirs in THEIRS_TO_ZERO.items()),
    ],
)
def test_after_the_warm_up_the_schedule_equals_that_of_transformers(
    scheduler: Scheduler, name: str, options: dict[str, Any], floor: float, warmup: int
) -> None:
    import torch
    from transformers import get_scheduler

    steps = 20
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_scheduler(name, optimizer, warmup, steps, scheduler_specific_kwargs=options)
    ours = rates(Schedule(scheduler, floor, power=1.5, cycles=3, decay_ratio=0.3), steps, warmup)
    for done in range(steps):
        if done >= warmup:
            assert ours[done] == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_the_settings_of_a_job_make_the_schedule() -> None:
    training = Training.model_validate(
        {"scheduler": "cosineWithRestarts", "minLearningRate": 2e-5, "schedulerOptions": {"cycles": 5}}
    )
    assert schedule_of(training, peak=1e-4) == Schedule("cosineWithRestarts", pytest.approx(0.2), cycles=5)


def test_a_run_trains_with_the_rates_of_its_schedule(tmp_path: Path, tiny: Path) -> None:
    settings = {
        "maxSteps": 6,
        "warmupSteps": 2,
        "scheduler": "polynomial",
        "learningRate": 1e-2,
        "minLearningRate": 1e-3,
    }
    run = make_run(tmp_path, tiny, tinymodel.rows(32), settings)
    run.do(train.run)
    expected = [5e-3, 1e-2, *(1e-3 + 9e-3 * left**2 for left in (1, 0.75, 0.5, 0.25))]
    assert [entry["learning_rate"] for entry in run.log_history()] == pytest.approx(expected)


def test_a_lowest_rate_above_the_default_of_the_highest_is_refused(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, tinymodel.rows(32), {"minLearningRate": 1e-3, "learningRate": None})
    with pytest.raises(
        RunFailure, match=r"training\.minLearningRate 0\.001 is above training\.learningRate, by default 0\.0001"
    ):
        run.do(train.run)
