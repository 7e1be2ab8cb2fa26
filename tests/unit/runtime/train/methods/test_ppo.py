"""Method ppo: its advantages and losses by their formulas, its rollouts, and what it learns from rewards."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.methods.samples import FULL, PROMPTS, VOWEL, history
from tests.unit.runtime.train.support import Run, again, make_run, stop_after
from tests.unit.runtime.train.worlds import train_together
from tunesmith_api.methods import Ppo
from tunesmith_api.run import Outcome
from tunesmith_runtime import export, train
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.train.methods import ppo as method

SETTINGS: dict[str, Any] = {"globalBatchSize": 32, "microBatchSize": 16, "learningRate": 2e-3, "maxLength": 64}


def ppo_run(
    folder: Path,
    model: Path,
    training: dict[str, Any],
    ppo: dict[str, Any] | None = None,
    rows: list[dict[str, Any]] = PROMPTS,
    **spec: Any,
) -> Run:
    options = {"method": "ppo", "ppo": {"maxCompletionLength": 8} | (ppo or {}), "rewards": [VOWEL]} | spec
    return make_run(folder, model, rows, SETTINGS | training, **options)


def test_the_reward_rises_and_only_the_policy_is_published(tmp_path: Path, tiny: Path) -> None:
    from safetensors.torch import load_file

    training = {"epochs": 8, "learningRate": 3e-3, "scheduler": "constant"}
    run = ppo_run(tmp_path, tiny, training, {"epochs": 2, "valueCoefficient": 0.5}, **FULL)
    report = run.do(train.run)
    assert report.outcome is Outcome.SUCCEEDED
    rewards = history(run, "reward")
    assert len(history(run, "loss")) == 8 * 64 * 2 // 32
    assert len(rewards) == 8 * 64 // 32  # a rollout of 32 completions is learned from in 2 steps
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.25
    assert all(0 < share < 1 for share in history(run, "sampling_share"))
    weights = load_file(run.work.run / "model" / "model.safetensors").keys()
    assert weights == load_file(tiny / "model.safetensors").keys()


def test_the_value_head_learns_what_a_completion_is_worth(tmp_path: Path, tiny: Path) -> None:
    always = {"name": "always", "type": "format", "pattern": ".*"}
    ppo = {"klCoefficient": 0, "valueClipRange": 1, "lambda": 1}
    run = ppo_run(tmp_path, tiny, {"epochs": 2, "learningRate": 1e-2}, ppo, rewards=[always], **FULL)
    run.do(train.run)
    losses = history(run, "value_loss")
    assert losses[0] == pytest.approx(0.5)  # all returns are 1, all values 0
    assert losses[-1] < 0.1


def test_a_run_that_stops_within_a_rollout_goes_on_the_same(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, options = {"maxSteps": 6}, {"lora": {"dropout": 0.1}}
    whole = ppo_run(tmp_path / "whole", tiny, training, **options)
    expected = whole.do(train.run)
    run = ppo_run(tmp_path / "stopped", tiny, training, **options)
    with stop_after(2, monkeypatch) as pusher:  # a rollout has 4 steps
        assert train.run(run.spec, run.work, pusher).outcome is Outcome.PREEMPTED
    resumed = again(run, tiny, PROMPTS, 2)
    report = train.run(resumed.spec, resumed.work, ProgressPusher(None, None))
    assert report.resumed_from_step in (2, 3)
    for metric in ("loss", "value_loss", "reward"):
        assert history(resumed, metric) == history(whole, metric)
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]
    assert [each.name for each in resumed.do(export.run).artifacts or []] == ["adapter", "merged"]


@pytest.mark.deep
def test_two_processes_compute_the_steps_of_one(tmp_path: Path, tiny: Path) -> None:
    """The last rollout has 3 prompts of 16, and the last step of an epoch is filled up with blank rows."""
    training = {"globalBatchSize": 8, "microBatchSize": 4, "precision": "fp32", "epochs": 2, "learningRate": 1e-3}
    runs = [
        ppo_run(tmp_path / f"{count}", tiny, training, {"epochs": 2, "minibatches": 2}, PROMPTS[:19], **FULL)
        for count in (1, 2)
    ]
    reports = [train_together(run, count)[0].report for count, run in enumerate(runs, start=1)]
    one, two = runs
    for metric in ("loss", "policy_loss", "value_loss", "reward", "kl", "completions/length"):
        assert history(two, metric) == pytest.approx(history(one, metric), abs=1e-5), metric
    assert len(history(two, "loss")) == 2 * 5  # 19 prompts in two passes
    metrics = [report and report.metrics for report in reports]
    assert metrics[0]
    assert metrics[1]
    assert metrics[1].tokens == metrics[0].tokens


@pytest.mark.deep
def test_two_processes_go_on_within_a_rollout(tmp_path: Path, tiny: Path) -> None:
    training = {"maxSteps": 8, "globalBatchSize": 8, "microBatchSize": 4, "precision": "fp32"}
    whole, run = (ppo_run(tmp_path / name, tiny, training, {"epochs": 2}) for name in ("whole", "stopped"))
    expected = train_together(whole)[0].report
    assert train_together(run, stop_at=3)[0].report.outcome is Outcome.PREEMPTED  # type: ignore[union-attr]
    resumed = again(run, tiny, PROMPTS, 2)
    report = train_together(resumed)[0].report
    assert report
    assert expected
    assert report.resumed_from_step in (3, 4)
    for metric in ("loss", "value_loss", "reward"):
        assert history(resumed, metric) == history(whole, metric)
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]


@pytest.mark.deep
def test_the_value_head_learns_beside_an_optimizer_of_matrices(tmp_path: Path, tiny: Path) -> None:
    always = {"name": "always", "type": "format", "pattern": ".*"}
    ppo = {"klCoefficient": 0, "valueClipRange": 1, "lambda": 1}
    training = {"epochs": 2, "learningRate": 1e-2, "optimizer": "muon"}
    run = ppo_run(tmp_path, tiny, training, ppo, rewards=[always], **FULL)
    run.do(train.run)
    losses = history(run, "value_loss")
    assert losses[-1] < 0.2 < losses[0]


def test_a_token_loses_what_it_is_likelier_than_before_and_the_last_gets_the_reward() -> None:
    import torch

    found = method.token_rewards(torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0]), 3.0, Ppo(kl_coefficient=0.1))
    assert found.tolist() == pytest.approx([-0.05, 3.1])


def test_advantages_are_the_discounted_errors_of_later_values() -> None:
    import torch

    rewards, values = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.5, 0.25, 1.0])
    errors = [1 + 0.9 * 0.25 - 0.5, 0 + 0.9 * 1.0 - 0.25, 2 - 1.0]
    decay = 0.9 * 0.8
    expected = [errors[0] + decay * (errors[1] + decay * errors[2]), errors[1] + decay * errors[2], errors[2]]
    assert method.advantages(rewards, values, Ppo(gamma=0.9, lambda_=0.8)).tolist() == pytest.approx(expected)
    assert method.advantages(rewards, values, Ppo()).tolist()[-1] == 1.0


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),  # clipped: nothing more is gained
        (0.5, 2.0, -1.0, -1.0),
        (0.5, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 3.0),  # a loss is never clipped
    ],
)
def test_a_gain_is_clipped_and_a_loss_is_not(ratio: float, advantage: float, loss: float, slope: float) -> None:
    import torch

    log_probs = torch.tensor([math.log(ratio)], requires_grad=True)
    found = method.policy_losses(log_probs, torch.zeros(1), torch.tensor([advantage]), Ppo())
    found.sum().backward()
    assert found.tolist() == pytest.approx([loss])
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == pytest.approx([slope])


def test_a_value_gains_nothing_beyond_its_clip_range() -> None:
    import torch

    values = torch.tensor([0.1, 0.9, -1.0], requires_grad=True)
    found = method.value_losses(values, torch.zeros(3), torch.ones(3), Ppo())
    found.sum().backward()
    assert found.tolist() == pytest.approx([0.5 * 0.9**2, 0.5 * 0.8**2, 0.5 * 2.0**2])
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([-0.9, 0.0, -2.0])


def test_a_rollout_is_learned_from_in_whole_passes() -> None:
    from tunesmith_runtime.train.trainers.actor_critic import RolloutSampler

    sampler = RolloutSampler([3] * 10, step_rows=2, ppo=Ppo(epochs=3, minibatches=2), seed=0)
    rows = list(sampler)
    assert sorted(rows) == list(range(30))
    first = sampler.prompts(0, 0)
    passes = [[row // 3 for row in rows[start : start + 4]] for start in (0, 4, 8)]
    assert [sorted(each) for each in passes] == [sorted(first)] * 3
    assert passes[0] != passes[1] or passes[1] != passes[2]
    assert [sampler.number_of(step) for step in (0, 5, 6, 14, 15, 21)] == [
        (0, 0),
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
    ]
    sampler.set_epoch(1)
    assert [row // 3 for row in list(sampler)[:4]] != passes[0]


def test_a_rollout_is_the_same_after_a_checkpoint(tmp_path: Path) -> None:
    import torch

    from tunesmith_runtime.train.rollouts.experience import Experience, Rollout

    def experience(tokens: list[int]) -> Experience:
        return Experience(tokens, *(torch.randn(len(tokens)) for _ in range(4)))

    rollout = Rollout((1, 2), {7: experience([4, 5, 6]), 3: experience([9])})
    rollout.save(tmp_path)
    found = Rollout.load(tmp_path)
    assert found is not None
    assert (found.number, list(found.by_prompt)) == ((1, 2), [7, 3])
    for prompt, each in rollout.by_prompt.items():
        assert found.by_prompt[prompt].tokens == each.tokens
        for name in ("log_probs", "values", "advantages", "returns"):
            assert torch.equal(vars(found.by_prompt[prompt])[name], vars(each)[name])
    assert Rollout.load(tmp_path / "absent") is None
