"""Contrastive preference optimization (Xu et al., 2024, https://arxiv.org/abs/2401.08417): no reference model.

With s the log-probability of an answer and m its mean over the tokens, the loss is
-log sigmoid(beta (s_chosen - s_rejected)) - alpha m_chosen. The second term, cross entropy of the chosen answer, keeps the model from
unlearning it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith_api.method_facts import Method as MethodName
from tunesmith_api.methods import Cpo
from tunesmith_runtime.data.records import Preference
from tunesmith_runtime.train.methods.base import Method, Setup, in_pairs, log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith_runtime.train.trainers.base import RunMixin
    from tunesmith_runtime.train.trainers.preference import Answers


def loss(answers: Answers, cpo: Cpo) -> Tensor:
    """Return the loss of each pair, (pairs,)."""
    chosen, rejected = answers.chosen, answers.rejected
    return -log_sigmoid(cpo.beta * (chosen.sums - rejected.sums)) - cpo.alpha * chosen.means


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer."""
    from tunesmith_runtime.train.trainers import preference

    cpo = setup.job.cpo or Cpo()
    objective = preference.Objective(
        loss=lambda answers: loss(answers, cpo),
        rewards=lambda answers: (cpo.beta * answers.chosen.sums, cpo.beta * answers.rejected.sums),
    )
    return preference.build_trainer(setup, objective)


CPO = Method(
    MethodName.CPO, learns_from=frozenset({Preference}), build_trainer=build_trainer, answers=2, arrange=in_pairs
)
