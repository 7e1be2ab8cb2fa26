"""Kahneman-Tversky optimization (Ethayarajh et al., 2024, https://arxiv.org/abs/2402.01306): answers that are good or bad, without pairs.

With the log-ratio r of an answer to the reference, the model before the training, and an estimate z of the KL divergence from it, the
loss is w (1 - sigmoid(beta (r - z))) of a good answer and w (1 - sigmoid(beta (z - r))) of a bad one (equations 7 and 8). z is the
mean log-ratio of answers to other prompts of the micro batch, at least 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import Method as MethodName
from tunesmith_api.methods import Kto
from tunesmith_runtime.data.records import Feedback
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.methods.base import Method, Setup

if TYPE_CHECKING:
    from pyarrow import Table
    from torch import Tensor

    from tunesmith_runtime.train.trainers.base import RunMixin
    from tunesmith_runtime.train.trainers.feedback import Rated


def loss(rated: Rated, kto: Kto) -> Tensor:
    """Return the loss of each answer, (rows,)."""
    sign = 2.0 * rated.is_good - 1.0
    weight = rated.is_good * kto.desirable_weight + ~rated.is_good * kto.undesirable_weight
    return weight * (1 - (kto.beta * sign * (rated.ratios - rated.divergence)).sigmoid())


def check_rows(job: FineTuneJobSpec, columns: Table) -> None:
    """Raise RunFailure (EmptyDataset) unless there are good and bad answers."""
    import pyarrow.compute

    values = {bool(value) for value in pyarrow.compute.unique(columns["value"]).to_pylist()}
    if len(values) == 1:
        kind, missing = ("good", "false") if values.pop() else ("bad", "true")
        raise RunFailure(
            FailureClass.EMPTY_DATASET,
            f"all {len(columns)} rows have a {kind} answer, and method kto learns from good and bad answers",
            f"add rows with label: {missing}",
        )


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer."""
    from tunesmith_runtime.train.models.reference import reference_of
    from tunesmith_runtime.train.trainers import feedback

    kto = setup.job.kto or Kto()
    reference = reference_of(setup.model, setup.job, bool(setup.arguments["bf16"]))
    return feedback.build_trainer(setup, lambda rated: loss(rated, kto), kto.beta, reference)


KTO = Method(MethodName.KTO, learns_from=frozenset({Feedback}), build_trainer=build_trainer, check_rows=check_rows)
