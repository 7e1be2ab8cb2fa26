"""Sequence classification and regression: a linear layer on the last token of a text.

The loss of a row with the logits z is the cross entropy of its class (singleLabel), the mean over the classes of the binary cross
entropy (multiLabel), or the mean over its numbers y of (z - y)^2 (regression).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tunesmith_api.method_facts import Method as MethodName
from tunesmith_api.methods import Problem
from tunesmith_runtime.data.records import Labelled
from tunesmith_runtime.train.methods.base import Method, Setup
from tunesmith_runtime.train.rows.labels import check_rows, head_settings, row_check

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith_runtime.train.trainers.base import RunMixin


def single_label(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy. `logits`, and `targets`, which are 1 for the class of a row, else 0: (rows, classes)."""
    return -(logits.log_softmax(dim=1) * targets).sum(dim=1)


def multi_label(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of the binary cross entropies. `targets` are 1 for the classes of a row, else 0: (rows, classes)."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)


def regression(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error. `logits` and `targets`: (rows, numbers)."""
    return ((logits - targets) ** 2).mean(dim=1)


LOSSES: Mapping[Problem, Callable[[Tensor, Tensor], Tensor]] = {
    Problem.SINGLE_LABEL: single_label,
    Problem.MULTI_LABEL: multi_label,
    Problem.REGRESSION: regression,
}
"""For each problem the loss of each row, (rows,)."""


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer."""
    from tunesmith_runtime.train.trainers import classification

    return classification.build_trainer(setup, LOSSES)


CLASSIFY = Method(
    MethodName.CLASSIFY,
    learns_from=frozenset({Labelled}),
    build_trainer=build_trainer,
    head=head_settings,
    check_rows=check_rows,
    row_check=lambda job, work: row_check(job),
)
