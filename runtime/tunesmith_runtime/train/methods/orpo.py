"""Odds ratio preference optimization (Hong et al., 2024, https://arxiv.org/abs/2403.07691): no reference model.

With p the probability of a token of an answer, as the geometric mean over its tokens, and odds(p) = p / (1 - p), the loss is
-log p(chosen) - beta log sigmoid(log odds(p(chosen)) - log odds(p(rejected))), equation 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith_api.method_facts import Method as MethodName
from tunesmith_api.methods import Orpo
from tunesmith_runtime.data.records import Preference
from tunesmith_runtime.train.methods.base import Method, Setup, in_pairs, log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith_runtime.train.trainers.base import RunMixin
    from tunesmith_runtime.train.trainers.preference import Answers


def loss(answers: Answers, orpo: Orpo) -> Tensor:
    """Return the loss of each pair, (pairs,)."""
    ratio = log_odds(answers.chosen.means) - log_odds(answers.rejected.means)
    return -answers.chosen.means - orpo.beta * log_sigmoid(ratio)


def log_odds(log_prob: Tensor) -> Tensor:
    """Return log(p / (1 - p)) of p = exp(log_prob); p is kept below 1, where the odds are infinite."""
    log_prob = log_prob.clamp(max=-1e-6)
    return log_prob - (-log_prob.expm1()).log()


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer."""
    from tunesmith_runtime.train.trainers import preference

    orpo = setup.job.orpo or Orpo()
    objective = preference.Objective(
        loss=lambda answers: loss(answers, orpo),
        rewards=lambda answers: (orpo.beta * answers.chosen.means, orpo.beta * answers.rejected.means),
    )
    return preference.build_trainer(setup, objective)


ORPO = Method(
    MethodName.ORPO, learns_from=frozenset({Preference}), build_trainer=build_trainer, answers=2, arrange=in_pairs
)
