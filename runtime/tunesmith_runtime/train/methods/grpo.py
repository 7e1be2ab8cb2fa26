"""Group relative policy optimization (Shao et al., 2024, https://arxiv.org/abs/2402.03300), Dr. GRPO (Liu et al., 2025,
https://arxiv.org/abs/2503.20783), the loss of DAPO (Yu et al., 2025, https://arxiv.org/abs/2503.14476) and the ratio of GSPO
(Zheng et al., 2025, https://arxiv.org/abs/2507.18071).

The model samples a group of completions for each prompt. The advantage A of a completion is its reward beyond the mean of its group,
divided by the group's standard deviation. With the ratio r of the probability of a token to that when it was sampled, the loss of a
token is -min(r A, clip(r) A), plus beta times an estimate of the KL divergence from the model before the training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith_api.method_facts import Method as MethodName
from tunesmith_api.methods import Grpo, GrpoLoss, Importance
from tunesmith_runtime.data.records import MultimodalPrompt, Prompt
from tunesmith_runtime.train.methods.base import Method, Setup, in_groups
from tunesmith_runtime.train.rewards import row_check

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith_runtime.train.losses.policy_loss import Sampled
    from tunesmith_runtime.train.trainers.base import RunMixin

SMALL = 1e-4
"""Added to a standard deviation, which is 0 in a group of equal rewards."""


def advantages(rewards: Tensor, grpo: Grpo) -> Tensor:
    """Return the advantages of groups of completions, both (groups, completions). NaN stands for a missing reward, and
    gives advantage 0."""
    centered = rewards - rewards.nanmean(dim=1, keepdim=True)
    if grpo.scale_rewards and grpo.loss is not GrpoLoss.DR_GRPO:
        rated = (~rewards.isnan()).sum(dim=1, keepdim=True)
        variance = centered.square().nansum(dim=1, keepdim=True) / (rated - 1).clamp(min=1)
        centered = centered / (variance.sqrt() + SMALL)
    return centered.nan_to_num()


def log_ratios(sampled: Sampled, grpo: Grpo) -> Tensor:
    """Return the logarithm of the ratio of each token, (rows, tokens); or of each sequence, (rows, 1)."""
    if grpo.importance is Importance.SEQUENCE:
        return sampled.log_ratios.sum(dim=1, keepdim=True) / sampled.lengths[:, None]
    return sampled.log_ratios


def loss(sampled: Sampled, rows: int, tokens: int, grpo: Grpo) -> Tensor:
    """Return the part of a micro batch of the loss of a step with `rows` completions of `tokens` tokens in all."""
    from tunesmith_runtime.train.losses.policy_loss import divergence, surrogate

    of_tokens = surrogate(log_ratios(sampled, grpo), sampled, grpo.clip)
    if sampled.reference is not None:
        of_tokens = of_tokens + grpo.beta * divergence(sampled.log_probs, sampled.reference)
    of_tokens = of_tokens * sampled.is_token
    if grpo.loss is GrpoLoss.DAPO:
        return of_tokens.sum() / tokens
    if grpo.loss is GrpoLoss.DR_GRPO:
        return of_tokens.sum() / (rows * grpo.max_completion_length)
    if grpo.loss is GrpoLoss.BNPO:
        share = sampled.is_token.any(dim=1).sum() / rows
        return share * of_tokens.sum() / sampled.is_token.sum().clamp(min=1)
    return (of_tokens.sum(dim=1) / sampled.lengths).sum() / rows


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer; it has a reference model if beta is not 0."""
    from tunesmith_runtime.train.losses.policy_loss import clipped_share
    from tunesmith_runtime.train.models.reference import reference_of
    from tunesmith_runtime.train.trainers import group_sampling

    grpo = setup.job.grpo or Grpo()
    policy = group_sampling.Policy(
        advantages=lambda rewards: advantages(rewards, grpo),
        loss=lambda sampled, rows, tokens: loss(sampled, rows, tokens, grpo),
        clipped=lambda sampled: clipped_share(log_ratios(sampled, grpo), sampled, grpo.clip),
        reference=reference_of(setup.model, setup.job, bool(setup.arguments["bf16"])) if grpo.beta else None,
    )
    return group_sampling.build_trainer(setup, policy, grpo)


GRPO = Method(
    MethodName.GRPO,
    learns_from=frozenset({Prompt, MultimodalPrompt}),
    build_trainer=build_trainer,
    arrange=in_groups,
    row_check=row_check,
    needs=frozenset({"math_verify"}),
)
