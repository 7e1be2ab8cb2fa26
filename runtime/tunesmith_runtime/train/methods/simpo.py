"""Simple preference optimization (Meng et al., 2024, https://arxiv.org/abs/2405.14734): no reference model.

With m the mean log-probability of an answer's tokens, the loss is -log sigmoid(beta (m_chosen - m_rejected) - gamma), equation 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith_api.method_facts import Method as MethodName
from tunesmith_api.methods import Simpo
from tunesmith_runtime.data.records import Preference
from tunesmith_runtime.train.methods.base import Method, Setup, in_pairs, log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith_runtime.train.trainers.base import RunMixin
    from tunesmith_runtime.train.trainers.preference import Answers


def loss(answers: Answers, simpo: Simpo) -> Tensor:
    """Return the loss of each pair, (pairs,)."""
    return -log_sigmoid(simpo.beta * (answers.chosen.means - answers.rejected.means) - simpo.gamma)


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer."""
    from tunesmith_runtime.train.trainers import preference

    simpo = setup.job.simpo or Simpo()
    objective = preference.Objective(
        loss=lambda answers: loss(answers, simpo),
        rewards=lambda answers: (simpo.beta * answers.chosen.means, simpo.beta * answers.rejected.means),
    )
    return preference.build_trainer(setup, objective)


SIMPO = Method(
    MethodName.SIMPO, learns_from=frozenset({Preference}), build_trainer=build_trainer, answers=2, arrange=in_pairs
)
