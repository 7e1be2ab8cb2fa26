"""Direct preference optimization (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290) and the losses that grew from it.

With the log-ratio r = log p(answer | prompt) - log p_ref(answer | prompt) of both answers, the loss of DPO is
-log sigmoid(beta (r_chosen - r_rejected)). The reference is the model before the training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith_api.method_facts import Method as MethodName
from tunesmith_api.methods import Dpo, DpoLoss
from tunesmith_runtime.data.records import Preference
from tunesmith_runtime.train.methods.base import Method, Setup, in_pairs, log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith_runtime.train.models.reference import Reference
    from tunesmith_runtime.train.trainers.base import RunMixin
    from tunesmith_runtime.train.trainers.preference import Answers


@dataclass(frozen=True)
class Ratios:
    """Inputs of the losses; each tensor is (pairs,)."""

    chosen: Tensor
    """Log-ratio of the chosen answer."""
    rejected: Tensor
    chosen_mean: Tensor
    """Log-ratio for each token of the chosen answer, on average."""
    rejected_mean: Tensor
    chosen_log_prob: Tensor
    """Mean log-probability of a token of the chosen answer by the trained model, without the reference."""


def sigmoid(ratios: Ratios, dpo: Dpo) -> Tensor:
    """DPO, equation 7."""
    return -log_sigmoid(dpo.beta * (ratios.chosen - ratios.rejected))


def hinge(ratios: Ratios, dpo: Dpo) -> Tensor:
    """SLiC-HF (Zhao et al., 2023, https://arxiv.org/abs/2305.10425), on the log-ratios."""
    return (1 - dpo.beta * (ratios.chosen - ratios.rejected)).relu()


def ipo(ratios: Ratios, dpo: Dpo) -> Tensor:
    """IPO (Azar et al., 2023, https://arxiv.org/abs/2310.12036), equation 17, with log-ratios for each token, so that the target does
    not depend on the length of the answers."""
    return (ratios.chosen_mean - ratios.rejected_mean - 1 / (2 * dpo.beta)) ** 2


def robust(ratios: Ratios, dpo: Dpo) -> Tensor:
    """Robust DPO (Chowdhury et al., 2024, https://arxiv.org/abs/2403.00409): labelSmoothing is the share of pairs that are the wrong way round."""
    delta, flipped = dpo.beta * (ratios.chosen - ratios.rejected), dpo.label_smoothing
    return (-(1 - flipped) * log_sigmoid(delta) + flipped * log_sigmoid(-delta)) / (1 - 2 * flipped)


def apo_zero(ratios: Ratios, dpo: Dpo) -> Tensor:
    """APO-zero (D'Oosterlinck et al., 2024, https://arxiv.org/abs/2408.06266): for chosen answers that are better than the model's own."""
    return (1 - (dpo.beta * ratios.chosen).sigmoid()) + (dpo.beta * ratios.rejected).sigmoid()


def apo_down(ratios: Ratios, dpo: Dpo) -> Tensor:
    """APO-down, of the same paper: for a model whose own answers are better than the chosen ones."""
    worse = (dpo.beta * (ratios.chosen - ratios.rejected)).sigmoid()
    return (dpo.beta * ratios.chosen).sigmoid() + (1 - worse)


def bco_pair(ratios: Ratios, dpo: Dpo) -> Tensor:
    """BCO (Jung et al., 2024, https://arxiv.org/abs/2404.04656) on pairs: each answer is classified as good or bad."""
    return -log_sigmoid(dpo.beta * ratios.chosen) - log_sigmoid(-dpo.beta * ratios.rejected)


def sft(ratios: Ratios, dpo: Dpo) -> Tensor:
    """Cross entropy of the chosen answer, for mixtures such as MPO (Wang et al., 2024, https://arxiv.org/abs/2411.10442)."""
    return -ratios.chosen_log_prob


LOSSES: Mapping[DpoLoss, Callable[[Ratios, Dpo], Tensor]] = {
    DpoLoss.SIGMOID: sigmoid,
    DpoLoss.HINGE: hinge,
    DpoLoss.IPO: ipo,
    DpoLoss.ROBUST: robust,
    DpoLoss.APO_ZERO: apo_zero,
    DpoLoss.APO_DOWN: apo_down,
    DpoLoss.BCO_PAIR: bco_pair,
    DpoLoss.SFT: sft,
}
"""The losses of dpo.loss."""


def ratios_of(answers: Answers) -> Ratios:
    """Return the log-ratios of a batch; without a reference, its log-probabilities are 0."""
    chosen, rejected = answers.chosen, answers.rejected
    if answers.reference_chosen is None or answers.reference_rejected is None:
        return Ratios(chosen.sums, rejected.sums, chosen.means, rejected.means, chosen.means)
    base_chosen, base_rejected = answers.reference_chosen, answers.reference_rejected
    return Ratios(
        chosen.sums - base_chosen.sums,
        rejected.sums - base_rejected.sums,
        chosen.means - base_chosen.means,
        rejected.means - base_rejected.means,
        chosen.means,
    )


def loss(answers: Answers, dpo: Dpo) -> Tensor:
    """Return the weighted sum of the losses of dpo.loss for each pair."""
    ratios, weights = ratios_of(answers), dpo.loss_weights or [1.0] * len(dpo.loss)
    weighted = (weight * LOSSES[name](ratios, dpo) for name, weight in zip(dpo.loss, weights, strict=True))
    total = next(weighted)
    for each in weighted:
        total = total + each
    return total


def rewards(answers: Answers, dpo: Dpo) -> tuple[Tensor, Tensor]:
    """Return the implicit rewards beta r of both answers (equation 5, without the constant of the prompt)."""
    ratios = ratios_of(answers)
    return dpo.beta * ratios.chosen, dpo.beta * ratios.rejected


def reference_for(setup: Setup, dpo: Dpo) -> Reference:
    """Return the reference of each step, or that of the pass before the first step."""
    from tunesmith_runtime.train.models.reference import present_reference, reference_of

    if dpo.precompute_reference:
        return present_reference(setup.model, setup.job)
    return reference_of(setup.model, setup.job, bool(setup.arguments["bf16"]))


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer, with a reference unless dpo.referenceFree."""
    from tunesmith_runtime.train.trainers import preference

    dpo = setup.job.dpo or Dpo()
    objective = preference.Objective(
        loss=lambda answers: loss(answers, dpo),
        rewards=lambda answers: rewards(answers, dpo),
        reference=None if dpo.reference_free else reference_for(setup, dpo),
        precomputes=dpo.precompute_reference,
    )
    return preference.build_trainer(setup, objective)


DPO = Method(
    MethodName.DPO, learns_from=frozenset({Preference}), build_trainer=build_trainer, answers=2, arrange=in_pairs
)
