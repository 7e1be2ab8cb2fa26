"""Method grpo: its advantages and losses by their formulas, its samples, and what it learns from rewards."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import Run, again, make_run, stop_after
from tunesmith_api.failures import FailureClass
from tunesmith_api.methods import Grpo
from tunesmith_api.run import Outcome
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.train.methods import grpo as method

PROMPTS = [{"prompt": row["messages"][:1], "answer": row["messages"][1]["content"]} for row in tinymodel.rows(64)]
VOWEL: dict[str, Any] = {"name": "vowel", "type": "format", "pattern": "e"}
SETTINGS: dict[str, Any] = {
    "globalBatchSize": 32,
    "microBatchSize": 16,
    "learningRate": 1e-2,
    "maxLength": 64,
    "epochs": 3,
}
GROUPS: dict[str, Any] = {"numGenerations": 8, "maxCompletionLength": 8}


def grpo_run(folder: Path, model: Path, training: dict[str, Any] | None = None, **spec: Any) -> Run:
    options = {"method": "grpo", "grpo": GROUPS, "rewards": [VOWEL], "lora": {"dropout": 0.1}} | spec
    return make_run(folder, model, PROMPTS, SETTINGS | (training or {}), **options)


def history(run: Run, metric: str) -> list[float]:
    return [entry[metric] for entry in run.log_history(metric)]


def test_the_reward_rises(tmp_path: Path, tiny: Path) -> None:
    run = grpo_run(tmp_path, tiny, {"epochs": 2, "learningRate": 2e-3}, tuner="full", lora=None)
    assert run.do(train.run).outcome is Outcome.SUCCEEDED
    rewards = history(run, "reward")
    assert len(rewards) == 2 * 64 * 8 // 32
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3
    assert all(0 < share < 1 for share in history(run, "sampling_share"))


def test_a_stopped_run_samples_and_learns_the_same(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"maxSteps": 4}
    whole = grpo_run(tmp_path / "whole", tiny, short)
    expected = whole.do(train.run)
    run = grpo_run(tmp_path / "stopped", tiny, short)
    with stop_after(2, monkeypatch) as pusher:
        assert train.run(run.spec, run.work, pusher).outcome is Outcome.PREEMPTED
    resumed = again(run, tiny, PROMPTS, 2)
    report = train.run(resumed.spec, resumed.work, ProgressPusher(None, None))
    assert report.resumed_from_step
    assert history(resumed, "reward") == history(whole, "reward")
    assert history(resumed, "loss") == history(whole, "loss")
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]
    assert [each.name for each in resumed.do(export.run).artifacts or []] == ["adapter", "merged"]


def test_a_kl_term_keeps_the_model_near_its_start(tmp_path: Path, tiny: Path) -> None:
    last = {}
    for beta in (0.001, 5.0):
        settings = {"maxSteps": 8, "learningRate": 2e-3}
        run = grpo_run(tmp_path / str(beta), tiny, settings, tuner="full", lora=None, grpo=GROUPS | {"beta": beta})
        run.do(train.run)
        last[beta] = history(run, "kl")[-1]
    assert 0 <= last[5.0] < last[0.001] / 2


def test_advantages_are_rewards_beyond_the_mean_of_their_group() -> None:
    import torch

    rewards = torch.tensor([[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    plain = method.advantages(rewards, Grpo(scale_rewards=False))
    assert plain.tolist() == [[0.5, -0.5, 0.5, -0.5], [0, 0, 0, 0]]
    scaled = method.advantages(rewards, Grpo())
    deviation = math.sqrt(4 * 0.25 / 3)
    assert scaled[0].tolist() == pytest.approx([0.5 / deviation, -0.5 / deviation] * 2, rel=1e-3)
    assert scaled[1].tolist() == [0, 0, 0, 0]
    assert method.advantages(rewards, Grpo(loss="drGrpo")).tolist() == plain.tolist()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("grpo", (-2 * 1 + 1 * 1) / 2),  # the mean of each completion, then of both
        ("dapo", (-2 * 1 + 1 * 3) / 4),  # the mean of all tokens
        ("drGrpo", (-2 * 1 + 1 * 3) / (2 * 10)),  # by the longest completion
    ],
)
def test_each_loss_weighs_tokens_as_its_paper(loss: str, expected: float) -> None:
    import torch

    from tunesmith_runtime.train.group import Sampled

    is_token = torch.tensor([[True, False, False], [True, True, True]])
    log_probs = torch.zeros(2, 3, requires_grad=True)
    sampled = Sampled(log_probs, is_token, None, torch.tensor([2.0, -1.0]))
    value = method.loss(sampled, 2, 4, Grpo(loss=loss, max_completion_length=10))
    assert float(value) == pytest.approx(expected)
    value.backward()
    assert log_probs.grad is not None
    assert float(log_probs.grad.sum()) == pytest.approx(
        expected
    )  # the gradient of a probability ratio is the advantage


def test_the_divergence_is_0_at_equal_probabilities_and_positive_elsewhere() -> None:
    import torch

    from tunesmith_runtime.train.group import divergence

    values = divergence(torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-1.0, -2.0, -0.5]))
    assert values.tolist() == pytest.approx([0, math.exp(-1) + 1 - 1, math.exp(0.5) - 0.5 - 1])


def test_the_rows_of_a_step_are_whole_groups() -> None:
    from tunesmith_runtime.train.group import GroupSampler

    sampler = GroupSampler([3, 1, 2, 5, 4], prompts=2, group=4, seed=0)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        indices = list(sampler)
        groups = [indices[start : start + 4] for start in range(0, 20, 4)]
        assert all(group == list(range(group[0], group[0] + 4)) and group[0] % 4 == 0 for group in groups)
        assert sorted(indices) == list(range(20))
    assert len(sampler) == 20


def test_a_completion_that_leaves_no_room_for_a_prompt_is_refused(tmp_path: Path, tiny: Path) -> None:
    run = grpo_run(tmp_path, tiny, grpo=GROUPS | {"maxCompletionLength": 512})
    with pytest.raises(
        RunFailure, match=r"grpo\.maxCompletionLength is 512, and the model has 512 positions"
    ) as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.BAD_SPEC


def test_a_row_without_the_column_of_the_answer_is_named(tmp_path: Path, tiny: Path) -> None:
    rewards = [{"name": "right", "type": "accuracy", "match": "exact", "column": "solution"}]
    run = grpo_run(tmp_path, tiny, {"maxSteps": 1}, rewards=rewards)
    with pytest.raises(RunFailure, match="a row has no column 'solution'; its further columns are answer"):
        run.do(train.run)
