"""Embedding models: texts of similar meaning get vectors of similar direction.

With the cosine similarity s of an anchor to a candidate, the loss of a row is InfoNCE (van den Oord et al., 2018, https://arxiv.org/abs/1807.03748):
-log(exp(s_p / t) / (exp(s_p / t) + sum over n of exp(s_n / t))), on average over the positives p of the row. The negatives n are its
own and the texts of all other rows of the forward pass on all devices (Karpukhin et al., 2020, https://arxiv.org/abs/2004.04906). A
pair with a score has the loss (s - score)^2 instead (Reimers and Gurevych, 2019, https://arxiv.org/abs/1908.10084). The mean over the
lengths of embed.dimensions is Matryoshka representation learning (Kusupati et al., 2022, https://arxiv.org/abs/2205.13147).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import Method as MethodName
from tunesmith_api.methods import Embed
from tunesmith_runtime.data.records import Contrast, Pair, Record
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.methods.base import Method, Setup, in_texts

if TYPE_CHECKING:
    from pyarrow import Table
    from torch import Tensor

    from tunesmith_runtime.train.trainers.base import RunMixin
    from tunesmith_runtime.train.trainers.contrast import Candidates


def info_nce(similarities: Tensor, candidates: Candidates, temperature: float) -> Tensor:
    """Return the loss of each anchor, (rows,), by its cosine similarities to all candidates, (rows, candidates)."""
    from tunesmith_runtime.train.losses.listwise import listwise_loss

    return listwise_loss(similarities / temperature, candidates.is_positive, candidates.is_negative)


def squared_error(similarities: Tensor, candidates: Candidates, scores: Tensor) -> Tensor:
    """Return the loss of each pair, (rows,), by its score, (rows,)."""
    own = (similarities * candidates.is_positive).sum(dim=1)
    return (own - scores) ** 2


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer. Raises RunFailure (BadSpec) if embed.dimensions has a length above the hidden size."""
    from tunesmith_runtime.train.trainers import contrast

    embed, size = setup.job.embed or Embed(), setup.model.config.get_text_config().hidden_size
    if too_long := [each for each in embed.dimensions or () if each > size]:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"embed.dimensions has {too_long[0]}, and the vectors of the model have {size} numbers",
            f"set spec.embed.dimensions to numbers of at most {size}",
        )

    def loss(similarities: Tensor, candidates: Candidates, scores: Tensor) -> Tensor:
        if bool(scores.isnan().any()):
            return info_nce(similarities, candidates, embed.temperature)
        return squared_error(similarities, candidates, scores)

    return contrast.build_trainer(setup, embed, sorted({*(embed.dimensions or ()), size}), loss)


def describe(job: FineTuneJobSpec, model: Any, folder: Path) -> None:
    """Write the files that describe the pooling of the vectors."""
    from tunesmith_runtime.train.models.embedding import write_files

    write_files(folder, job.embed or Embed(), model.config.get_text_config().hidden_size, job.training.max_length)


def check_rows(job: FineTuneJobSpec, columns: Table) -> None:
    """Refuse pairs if only some of them have a score. Raises RunFailure (BadRow)."""
    scored = len(columns) - columns["value"].null_count
    if 0 < scored < len(columns):
        from tunesmith_runtime.data.text_groups import row_starts

        starts = row_starts(columns)
        rows = len(starts) - columns["value"].take(starts).null_count
        raise RunFailure(
            FailureClass.BAD_ROW,
            f"{rows} of {len(starts)} rows have a score, and the others none: similarities are learned from scores, or from positives and negatives",
            "give each pair a score, or none",
        )


def check_score(record: Record) -> None:
    """Raise RowError for a score that is no cosine similarity."""
    if isinstance(record, Pair) and record.score is not None and not -1 <= record.score <= 1:
        raise RowError(
            f"has the score {record.score:g}, and a cosine similarity is within -1 and 1",
            "divide the scores by the largest of them",
        )


EMBED = Method(
    MethodName.EMBED,
    learns_from=frozenset({Pair, Contrast}),
    build_trainer=build_trainer,
    arrange=in_texts,
    check_rows=check_rows,
    row_check=lambda job, work: check_score,
    describe=describe,
)
