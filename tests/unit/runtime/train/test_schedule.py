"""The learning rate of each step is above 0, and at its peak after the warm-up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tunesmith_api.training import Scheduler
from tunesmith_runtime.train.schedule import share

SCHEDULERS = tuple(Scheduler)


@given(scheduler=some.sampled_from(SCHEDULERS), steps=some.integers(1, 300), ratio=some.floats(0, 1))
def test_every_rate_is_positive_and_the_highest_is_the_peak(scheduler: Scheduler, steps: int, ratio: float) -> None:
    warmup = round(steps * ratio)
    rates = [share(done, steps, warmup, scheduler) for done in range(steps)]
    assert min(rates) > 0
    assert max(rates) == 1.0
    assert rates[:warmup] == sorted(rates[:warmup])


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_single_step_has_the_peak_rate(scheduler: Scheduler) -> None:
    assert share(0, steps=1, warmup=1, scheduler=scheduler) == 1.0


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (Scheduler.CONSTANT, [0.5, 1, 1, 1, 1, 1]),
        (Scheduler.LINEAR, [0.5, 1, 1, 0.75, 0.5, 0.25]),
        (Scheduler.COSINE, [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_rate_rises_over_the_warm_up_and_then_follows_the_schedule(
    scheduler: Scheduler, expected: list[float]
) -> None:
    assert [share(done, 6, 2, scheduler) for done in range(6)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_without_warm_up_the_schedule_equals_that_of_transformers(name: str) -> None:
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=0, num_training_steps=9)
    for done in range(9):
        assert share(done, 9, 0, Scheduler(name)) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
