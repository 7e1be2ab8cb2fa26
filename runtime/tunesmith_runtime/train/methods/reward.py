"""Reward modelling (Ouyang et al., 2022, https://arxiv.org/abs/2203.02155): a score of answers by the model of Bradley and Terry (1952).

With the scores r of both answers and the margin m of the row, 0 without one, the loss is -log sigmoid(r_chosen -
r_rejected - m) (Touvron et al., 2023, https://arxiv.org/abs/2307.09288, equation 2) plus c (r_chosen + r_rejected)^2,
which keeps the mean of the scores near 0 (Eisenstein et al., 2023, https://arxiv.org/abs/2312.09244), as the first term
fixes only their differences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith_api.method_facts import Method as MethodName
from tunesmith_api.methods import RewardModel
from tunesmith_runtime.data.records import Preference
from tunesmith_runtime.train.methods.base import Method, Setup, in_pairs, log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith_runtime.train.trainers.base import RunMixin
    from tunesmith_runtime.train.trainers.pair_scores import Scores


def loss(scores: Scores, reward: RewardModel) -> Tensor:
    """Return the loss of each pair, (pairs,)."""
    ranking = -log_sigmoid(scores.chosen - scores.rejected - scores.margin)
    return ranking + reward.center_coefficient * (scores.chosen + scores.rejected) ** 2


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer."""
    from tunesmith_runtime.train.trainers import pair_scores

    reward = setup.job.reward or RewardModel()
    return pair_scores.build_trainer(setup, lambda scores: loss(scores, reward))


REWARD = Method(
    MethodName.REWARD,
    learns_from=frozenset({Preference}),
    build_trainer=build_trainer,
    answers=2,
    arrange=in_pairs,
    head=lambda job, rows: {"num_labels": 1},
)
