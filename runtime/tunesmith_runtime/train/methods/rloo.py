"""REINFORCE leave-one-out (Ahmadian et al., 2024, https://arxiv.org/abs/2402.14740).

The model samples a group of completions for each prompt. From the reward of a completion, beta times its log-ratio to the model before
the training is taken. Its advantage A is this reward beyond the mean of the other completions of the group. With the ratio r of the
probability of the whole completion to that when it was sampled, its loss is -min(r A, clip(r) A).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith_api.method_facts import Method as MethodName
from tunesmith_api.methods import Rloo
from tunesmith_runtime.data.records import MultimodalPrompt, Prompt
from tunesmith_runtime.train.methods.base import Method, Setup, in_groups
from tunesmith_runtime.train.rewards import row_check

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith_runtime.train.losses.policy_loss import Sampled
    from tunesmith_runtime.train.trainers.base import RunMixin


def advantages(rewards: Tensor) -> Tensor:
    """Return the advantages of groups of completions, both (groups, completions). NaN stands for a missing reward, and
    gives advantage 0."""
    rated = (~rewards.isnan()).sum(dim=1, keepdim=True)
    others = (rewards.nansum(dim=1, keepdim=True) - rewards) / (rated - 1).clamp(min=1)
    return ((rewards - others) * (rated > 1)).nan_to_num()


def log_ratios(sampled: Sampled) -> Tensor:
    """Return the logarithm of the ratio of each completion, (rows, 1)."""
    return sampled.log_ratios.sum(dim=1, keepdim=True)


def loss(sampled: Sampled, rows: int, rloo: Rloo) -> Tensor:
    """Return the part of a micro batch of the mean loss of a step with `rows` completions."""
    from tunesmith_runtime.train.losses.policy_loss import surrogate

    of_rows = surrogate(log_ratios(sampled), sampled, rloo.clip)[:, 0]
    return (of_rows * sampled.is_token.any(dim=1)).sum() / rows


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer; it has a reference model if beta is not 0."""
    from tunesmith_runtime.train.losses.policy_loss import clipped_share
    from tunesmith_runtime.train.models.reference import reference_of
    from tunesmith_runtime.train.trainers import group_sampling

    rloo = setup.job.rloo or Rloo()
    policy = group_sampling.Policy(
        advantages=advantages,
        loss=lambda sampled, rows, _: loss(sampled, rows, rloo),
        clipped=lambda sampled: clipped_share(log_ratios(sampled), sampled, rloo.clip),
        reference=reference_of(setup.model, setup.job, bool(setup.arguments["bf16"])) if rloo.beta else None,
        reward_beta=rloo.beta,
    )
    return group_sampling.build_trainer(setup, policy, rloo)


RLOO = Method(
    MethodName.RLOO,
    learns_from=frozenset({Prompt, MultimodalPrompt}),
    build_trainer=build_trainer,
    arrange=in_groups,
    row_check=row_check,
    needs=frozenset({"math_verify"}),
)
