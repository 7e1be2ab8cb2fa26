"""Rerankers: a model reads a query together with a passage (Nogueira and Cho, 2019, https://arxiv.org/abs/1901.04085), and scores them.

With the scores s of the passages of a query, the loss of a row is listwise (Cao et al., 2007, ListNet): -log(exp(s_p / t) / (exp(s_p / t) +
sum over n of exp(s_n / t))), on average over the positives p of the row. The negatives n are its own and, with inBatchNegatives, the
positives of the other rows of the forward pass (Gao et al., 2021, https://arxiv.org/abs/2101.08751).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy
import pyarrow.compute

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import Method as MethodName
from tunesmith_api.methods import Rerank
from tunesmith_runtime.data.encoders.texts import TextRole
from tunesmith_runtime.data.records import Contrast, Pair, Record
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.methods.base import Method, Setup, in_texts

if TYPE_CHECKING:
    from pyarrow import Table
    from torch import Tensor

    from tunesmith_runtime.train.trainers.base import RunMixin


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer."""
    from tunesmith_runtime.train.losses.listwise import listwise_loss
    from tunesmith_runtime.train.trainers import ranking

    rerank = setup.job.rerank or Rerank()

    def loss(scores: Tensor, is_positive: Tensor, is_negative: Tensor) -> Tensor:
        return listwise_loss(scores / rerank.temperature, is_positive, is_negative)

    return ranking.build_trainer(setup, rerank.in_batch_negatives, loss)


def check_rows(job: FineTuneJobSpec, columns: Table) -> None:
    """Refuse rows of which some have no passage to compare the positive with. Raises RunFailure (BadRow)."""
    from tunesmith_runtime.data.text_groups import row_starts

    starts = row_starts(columns)
    in_batch = (job.rerank or Rerank()).in_batch_negatives
    if not len(starts) or (in_batch and len(starts) > 1):
        return
    is_negative = pyarrow.compute.equal(columns["columns"], str(TextRole.NEGATIVE)).to_numpy()
    if lone := int((numpy.add.reduceat(is_negative.astype(numpy.int64), starts) == 0).sum()):
        raise RunFailure(
            FailureClass.BAD_ROW,
            f"{lone} of {len(starts)} rows have no negative passage, and the positive of a row is ranked against its negatives",
            "add rows with other queries, or negatives to each row"
            if in_batch
            else "add negatives to each row, or remove spec.rerank.inBatchNegatives",
        )


def check_score(record: Record) -> None:
    """Raise RowError for a pair with a score, from which no ranking is learned."""
    if isinstance(record, Pair) and record.score is not None:
        raise RowError(
            f"has the score {record.score:g}, and method {MethodName.RERANK} learns from positive and negative passages",
            f"remove the score, or use method {MethodName.CLASSIFY} with problem: regression",
        )


RERANK = Method(
    MethodName.RERANK,
    learns_from=frozenset({Pair, Contrast}),
    build_trainer=build_trainer,
    head=lambda job, rows: {"num_labels": 1},
    arrange=in_texts,
    check_rows=check_rows,
    row_check=lambda job, work: check_score,
)
