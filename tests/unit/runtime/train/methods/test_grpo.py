"""Method grpo: its advantages and losses by their formulas, its samples, and what it learns from rewards."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from tests.unit.runtime.train.methods.samples import FULL, PROMPTS, history, sampling_run
from tunesmith_api.failures import FailureClass
from tunesmith_api.methods import Grpo
from tunesmith_api.run import Outcome
from tunesmith_runtime import train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.row_count import encode_lightly
from tunesmith_runtime.train.methods import grpo as method


def test_the_reward_rises(tmp_path: Path, tiny: Path) -> None:
    run = sampling_run(tmp_path, tiny, {"epochs": 2, "learningRate": 2e-3}, **FULL)
    assert run.do(train.run).outcome is Outcome.SUCCEEDED
    rewards = history(run, "reward")
    assert len(rewards) == 2 * 64 * 8 // 32
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3
    assert all(0 < share < 1 for share in history(run, "sampling_share"))


def test_a_kl_term_keeps_the_model_near_its_start(tmp_path: Path, tiny: Path) -> None:
    last = {}
    for beta in (0.001, 5.0):
        training = {"maxSteps": 8, "learningRate": 2e-3}
        run = sampling_run(tmp_path / str(beta), tiny, training, settings={"beta": beta}, **FULL)
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
        ("bnpo", (-2 * 1 + 1 * 3) / 4),  # the mean of the tokens of the micro batch, which is the whole batch here
    ],
)
def test_each_loss_weighs_tokens_as_its_paper(loss: str, expected: float) -> None:
    import torch

    from tunesmith_runtime.train.losses.policy_loss import Sampled

    is_token = torch.tensor([[True, False, False], [True, True, True]])
    log_probs = torch.zeros(2, 3, requires_grad=True)
    sampled = Sampled(log_probs, is_token, torch.tensor([2.0, -1.0]))
    value = method.loss(sampled, 2, 4, Grpo(loss=loss, max_completion_length=10))
    assert float(value) == pytest.approx(expected)
    value.backward()
    assert log_probs.grad is not None
    assert float(log_probs.grad.sum()) == pytest.approx(
        expected
    )  # the gradient of a probability ratio is the advantage


def test_the_mean_over_a_micro_batch_counts_by_its_completions() -> None:
    import torch

    from tunesmith_runtime.train.losses.policy_loss import Sampled

    parts = [Sampled(torch.zeros(1, count), torch.ones(1, count).bool(), torch.tensor([-1.0])) for count in (1, 3)]
    values = [float(method.loss(part, 2, 4, Grpo(loss="bnpo"))) for part in parts]
    assert values == [0.5, 0.5]


def test_the_ratio_of_a_sequence_is_the_mean_of_its_tokens() -> None:
    import torch

    from tunesmith_runtime.train.losses.policy_loss import Sampled

    log_probs = torch.tensor([[0.3, 0.1, 9.0]], requires_grad=True)
    sampled = Sampled(log_probs, torch.tensor([[True, True, False]]), torch.tensor([1.0]), torch.zeros(1, 3))
    sequence = Grpo(importance="sequence", steps_per_rollout=2, clip={"low": 0.5, "high": 0.5})
    value = method.loss(sampled, 1, 2, sequence)
    assert float(value) == pytest.approx(-math.exp(0.2))
    value.backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist()[0] == pytest.approx([-math.exp(0.2) / 2, -math.exp(0.2) / 2, 0])
    of_tokens = method.loss(sampled, 1, 2, sequence.model_copy(update={"importance": "token"}))
    assert float(of_tokens) == pytest.approx(-(math.exp(0.3) + math.exp(0.1)) / 2)


def test_a_completion_without_a_reward_changes_nothing_for_its_group() -> None:
    import torch

    rewards = torch.tensor([[1.0, math.nan, 0.0, 1.0]])
    rated = torch.tensor([[1.0, 0.0, 1.0]])
    found = method.advantages(rewards, Grpo())[0].tolist()
    assert found[1] == 0
    assert [found[0], *found[2:]] == pytest.approx(method.advantages(rated, Grpo())[0].tolist())


def test_a_completion_that_leaves_no_room_for_a_prompt_is_refused(tmp_path: Path, tiny: Path) -> None:
    run = sampling_run(tmp_path, tiny, settings={"maxCompletionLength": 512})
    with pytest.raises(
        RunFailure, match=r"grpo\.maxCompletionLength is 512, and the model has 512 positions"
    ) as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.BAD_SPEC


def test_prompts_that_completions_leave_no_room_for_are_dropped_with_a_hint_that_lets_them_fit(
    tmp_path: Path, tiny: Path
) -> None:
    """The model has 512 positions."""
    run = sampling_run(tmp_path / "long", tiny, {"maxSteps": 1}, settings={"maxCompletionLength": 505})
    with pytest.raises(RunFailure, match="so a row holds at most 7 tokens") as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.EMPTY_DATASET
    hint = re.fullmatch(
        r"set spec\.grpo\.maxCompletionLength to (\d+) or less, and spec\.training\.maxLength to (\d+) or more",
        failure.value.hint or "",
    )
    assert hint is not None
    completion, prompt = map(int, hint.groups())
    assert completion + prompt == 512
    fitting = sampling_run(
        tmp_path / "fitting", tiny, {"maxLength": prompt}, settings={"maxCompletionLength": completion}
    )
    assert encode_lightly(fitting.spec.fine_tune_job(), fitting.work).rows.kept == len(PROMPTS)


def test_a_row_without_the_column_of_the_answer_is_named(tmp_path: Path, tiny: Path) -> None:
    rewards = [{"name": "right", "type": "accuracy", "match": "exact", "column": "solution"}]
    run = sampling_run(tmp_path, tiny, {"maxSteps": 1}, rewards=rewards)
    expected = "line 1: has no answer in 'solution', the column of reward right; its further columns are answer"
    with pytest.raises(RunFailure, match=expected) as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.BAD_ROW
