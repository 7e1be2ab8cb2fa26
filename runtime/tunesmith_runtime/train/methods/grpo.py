"""Group relative policy optimization (Shao et al., 2024, https://arxiv.org/abs/2402.03300), Dr. GRPO (Liu et al., 2025,
https://arxiv.org/abs/2503.20783) and the loss of DAPO (Yu et al., 2025, https://arxiv.org/abs/2503.14476).

The model samples a group of completions for each prompt. The advantage of a completion is its reward beyond the mean of its group,
divided by the group's standard deviation. With the probability p of a token, the loss of a token is -A p / p', where p' is p
without its gradient, plus beta times an estimate of the KL divergence from the model before the training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.methods import Grpo, GrpoLoss
from tunesmith_api.training import Method as MethodName
from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.train.methods.base import Method, Setup

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from tunesmith_runtime.data.prompts import Prompts
    from tunesmith_runtime.train.group import Sampled
    from tunesmith_runtime.train.trainer import RunMixin

SMALL = 1e-4
"""Added to a standard deviation: a group of equal rewards has none, and no advantages."""


def advantages(rewards: Tensor, grpo: Grpo) -> Tensor:
    """Return the advantages of groups of completions, both (groups, completions)."""
    centered = rewards - rewards.mean(dim=1, keepdim=True)
    if not grpo.scale_rewards or grpo.loss is GrpoLoss.DR_GRPO:
        return centered
    return centered / (rewards.std(dim=1, keepdim=True) + SMALL)


def loss(sampled: Sampled, rows: int, tokens: int, grpo: Grpo) -> Tensor:
    """Return the part of a micro batch of the loss of a step with `rows` completions of `tokens` tokens in all."""
    from tunesmith_runtime.train.group import divergence

    ratio = (sampled.log_probs - sampled.log_probs.detach()).exp()
    of_tokens = -sampled.advantages[:, None] * ratio
    if sampled.reference is not None:
        of_tokens = of_tokens + grpo.beta * divergence(sampled.log_probs, sampled.reference)
    of_tokens = of_tokens * sampled.is_token
    if grpo.loss is GrpoLoss.DAPO:
        return of_tokens.sum() / max(1, tokens)
    if grpo.loss is GrpoLoss.DR_GRPO:
        return of_tokens.sum() / (rows * grpo.max_completion_length)
    return (of_tokens.sum(dim=1) / sampled.is_token.sum(dim=1).clamp(min=1)).sum() / rows


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer; it has a reference model if beta is not 0."""
    from tunesmith_runtime.train import group
    from tunesmith_runtime.train.reference import reference_of

    grpo = setup.job.grpo or Grpo()
    policy = group.Policy(
        advantages=lambda rewards: advantages(rewards, grpo),
        loss=lambda sampled, rows, tokens: loss(sampled, rows, tokens, grpo),
        reference=reference_of(setup.model, setup.job, bool(setup.arguments["bf16"])) if grpo.beta else None,
    )
    return group.build_trainer(setup, policy, grpo)


def arrange(examples: Dataset, job: FineTuneJobSpec) -> Prompts:
    """Return each prompt as a group of rows."""
    from tunesmith_runtime.data.prompts import Prompts

    return Prompts(examples, (job.grpo or Grpo()).num_generations)


GRPO = Method(
    MethodName.GRPO,
    learns_from=frozenset({Prompt}),
    build_trainer=build_trainer,
    arrange=arrange,
    needs=frozenset({"math_verify"}),
)
