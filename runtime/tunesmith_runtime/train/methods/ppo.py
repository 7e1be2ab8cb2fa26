"""Proximal policy optimization (Schulman et al., 2017, https://arxiv.org/abs/1707.06347) of a language model, as in InstructGPT
(Ouyang et al., 2022, https://arxiv.org/abs/2203.02155).

A token is an action. Its reward is -klCoefficient (log p - log q), with the probabilities p of the policy that samples and q of the model
before the training; the last token of a completion also has the completion's rewards. Advantages are generalized (Schulman et al.,
2015, https://arxiv.org/abs/1506.02438), and have mean 0 and deviation 1 over a rollout. The value head is trained on advantage + value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import Method as MethodName
from tunesmith_api.methods import Ppo
from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.train.methods.base import Method, Setup
from tunesmith_runtime.train.rewards import row_check

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from tunesmith_runtime.data.prompts import Prompts
    from tunesmith_runtime.train.trainers.base import RunMixin

SMALL = 1e-8
"""Added to a variance, which is 0 where all advantages are equal."""


def token_rewards(log_probs: Tensor, reference: Tensor, score: float, ppo: Ppo) -> Tensor:
    """Return the reward of each token of a completion, (tokens,), from its log-probabilities by policy and reference."""
    rewards = -ppo.kl_coefficient * (log_probs - reference)
    rewards[-1] += score
    return rewards


def advantages(rewards: Tensor, values: Tensor, ppo: Ppo) -> Tensor:
    """Return the generalized advantage of each token of a completion, (tokens,): the sum over its later tokens of
    (gamma lambda)^l (reward + gamma next value - value). Nothing follows the last token."""
    found, later, next_value = rewards.clone(), rewards.new_zeros(()), rewards.new_zeros(())
    for at in range(len(rewards) - 1, -1, -1):
        error = rewards[at] + ppo.gamma * next_value - values[at]
        later = error + ppo.gamma * ppo.lambda_ * later
        found[at], next_value = later, values[at]
    return found


def whitened(values: Tensor) -> Tensor:
    """Return the values shifted and scaled to mean 0 and deviation 1."""
    return (values - values.mean()) / (values.var(unbiased=False) + SMALL).sqrt()


def policy_losses(log_probs: Tensor, old: Tensor, advantages: Tensor, ppo: Ppo) -> Tensor:
    """Return the clipped surrogate loss of each token (equation 7)."""
    ratios = (log_probs - old).exp()
    clipped = ratios.clamp(1 - ppo.clip_range, 1 + ppo.clip_range)
    return -(advantages * ratios).minimum(advantages * clipped)


def value_losses(values: Tensor, old: Tensor, returns: Tensor, ppo: Ppo) -> Tensor:
    """Return half the squared error of each value; of the value clipped near its old one, where that error is larger."""
    clipped = old + (values - old).clamp(-ppo.value_clip_range, ppo.value_clip_range)
    return 0.5 * ((values - returns) ** 2).maximum((clipped - returns) ** 2)


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer, with a reference unless ppo.klCoefficient is 0."""
    from tunesmith_runtime.train.models.reference import reference_of
    from tunesmith_runtime.train.trainers import actor_critic

    ppo = setup.job.ppo or Ppo()
    reference = reference_of(setup.model, setup.job, bool(setup.arguments["bf16"])) if ppo.kl_coefficient else None
    return actor_critic.build_trainer(setup, ppo, reference)


def arrange(examples: Dataset, job: FineTuneJobSpec) -> Prompts:
    """Return each prompt as a row for each pass over its completion."""
    from tunesmith_runtime.data.prompts import Prompts

    return Prompts(examples, (job.ppo or Ppo()).epochs)


PPO = Method(
    MethodName.PPO,
    learns_from=frozenset({Prompt}),
    build_trainer=build_trainer,
    arrange=arrange,
    row_check=row_check,
    needs=frozenset({"math_verify"}),
)
