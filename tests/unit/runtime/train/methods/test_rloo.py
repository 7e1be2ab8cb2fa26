"""Method rloo: its advantages and loss by their formulas, and what it learns from rewards."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.unit.runtime.train.methods.samples import FULL, history, sampling_run
from tunesmith_api.methods import Rloo
from tunesmith_api.run import Outcome
from tunesmith_runtime import train
from tunesmith_runtime.train.methods import rloo as method


def test_the_reward_rises(tmp_path: Path, tiny: Path) -> None:
    run = sampling_run(tmp_path, tiny, {"epochs": 2, "learningRate": 2e-3}, "rloo", {"beta": 0.001}, **FULL)
    assert run.do(train.run).outcome is Outcome.SUCCEEDED
    rewards = history(run, "reward")
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2


@pytest.mark.deep
def test_the_divergence_in_the_reward_keeps_the_model_near_its_start(tmp_path: Path, tiny: Path) -> None:
    """Measured: 0.49 with a strong pull, 1.6 with a weak one."""
    last = {}
    for beta in (0.001, 5.0):
        training = {"maxSteps": 24, "learningRate": 1e-3}
        run = sampling_run(tmp_path / str(beta), tiny, training, "rloo", {"beta": beta}, **FULL)
        run.do(train.run)
        last[beta] = sum(history(run, "kl")[-6:]) / 6
    assert last[5.0] < last[0.001] / 2


def test_the_baseline_of_a_completion_is_the_mean_of_the_others() -> None:
    import torch

    rewards = torch.tensor([[1.0, 0.0, 0.5], [2.0, 2.0, 2.0], [1.0, math.nan, 0.0], [1.0, math.nan, math.nan]])
    expected = [[0.75, -0.75, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]
    assert method.advantages(rewards).tolist() == expected


def test_the_loss_takes_the_ratio_of_whole_completions() -> None:
    import torch

    from tunesmith_runtime.train.losses.policy_loss import Sampled

    is_token = torch.tensor([[True, False], [True, True], [False, False]])
    log_probs = torch.tensor([[0.1, 0.0], [-0.1, 0.2], [0.0, 0.0]], requires_grad=True)
    sampled = Sampled(log_probs, is_token, torch.tensor([1.0, -1.0, 5.0]), torch.zeros(3, 2))
    loss = method.loss(sampled, 2, Rloo(steps_per_rollout=2))
    assert loss.item() == pytest.approx((-math.exp(0.1) + math.exp(0.1)) / 2)
    loss.backward()
    assert log_probs.grad is not None
    assert log_probs.grad.flatten().tolist() == pytest.approx(
        [-math.exp(0.1) / 2, 0, math.exp(0.1) / 2, math.exp(0.1) / 2, 0, 0]
    )
