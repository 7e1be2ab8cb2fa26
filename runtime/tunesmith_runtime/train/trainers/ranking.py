"""The trainer of rerankers: scores of the passages of each query, from a head on the last token of query and passage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith_runtime.data.encoders.texts import TextRole
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.data.pair_template import PairTemplate, pair_template
from tunesmith_runtime.modelcheck.config import positions
from tunesmith_runtime.tasks import RERANK
from tunesmith_runtime.train.models.head import find_head, head_logits
from tunesmith_runtime.train.rows.batches import padded
from tunesmith_runtime.train.trainers.row_loss import RowLoss, is_row, sequences_at, trainer_options

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup

NONE, POSITIVE, NEGATIVE = range(3)
ROLES = {TextRole.FIRST: POSITIVE, TextRole.POSITIVE: POSITIVE, TextRole.NEGATIVE: NEGATIVE}
"""Numbers of the roles in a batch; NONE fills up rows."""
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Returns the loss of each row, (rows,), by the scores of its passages, and which are positives and negatives, each (rows, passages)."""


class RankTrainer(RowLoss):
    """Takes all passages of a batch, each joined with its query, through the model at once."""

    def __init__(self, *arguments: Any, loss: Loss, **options: Any) -> None:
        self._loss = loss
        super().__init__(*arguments, **options)
        self._head = find_head(self.model, RERANK)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss of the rows."""
        used, role = is_row(inputs), inputs["role"]
        scores, is_positive, is_negative = (
            each[used] for each in (self._scores(model, inputs), role == POSITIVE, role == NEGATIVE)
        )
        self.record(ranking_figures(scores.detach(), is_positive, is_negative))
        loss = self.mean_over_rows(self._loss(scores, is_positive, is_negative), num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def _scores(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the score of each passage, (rows, passages); 0 for those that fill up a row."""
        filled, sequences = sequences_at(inputs, inputs["role"] != NONE)
        found = head_logits(model, self._head, sequences)[:, 0]
        scores = found.new_zeros(filled.shape)
        scores[filled] = found
        return scores


def ranking_figures(scores: Tensor, is_positive: Tensor, is_negative: Tensor) -> dict[str, Tensor]:
    """Return the reciprocal rank of the best positive of each row with negatives, (rows,), and whether it ranks first.

    Arguments: (rows, passages). A negative with an equal score ranks before the positive.
    """
    best = scores.masked_fill(~is_positive, -torch.inf).amax(dim=1, keepdim=True)
    before = (is_negative & (scores >= best)).sum(dim=1)[is_negative.any(dim=1)]
    return {"mrr": 1 / (1 + before), "accuracy": before == 0}


@dataclass(frozen=True)
class Passage:
    """A passage of a row: its tokens, its role, and the sequence of the row's query with it."""

    tokens: list[int]
    role: int
    ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Row:
    """A query with its passages; a row without passages fills up a batch."""

    query: list[int]
    passages: list[Passage]

    @property
    def positives(self) -> list[list[int]]:
        """The tokens of its positives."""
        return [each.tokens for each in self.passages if each.role == POSITIVE]


@dataclass(frozen=True)
class Joiner:
    """Joins the queries and passages of a batch."""

    template: PairTemplate
    pad_token: int
    most: int
    """Tokens of a sequence at most."""
    in_batch: bool
    """Whether the positives of other rows are negatives."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return a batch: the input_ids, attention_mask and labels of `padded`, each (rows, passages, length), and role, (rows,
        passages). Rows with fewer passages are filled up with blank ones."""
        read = [self._read(row) for row in rows]
        lists = [row.passages + (self._of_others(row, read) if self.in_batch else []) for row in read]
        most = max(1, *map(len, lists))
        blank = Passage([], NONE, [self.pad_token], [IGNORED])
        flat = [each for passages in lists for each in (*passages, *[blank] * (most - len(passages)))]
        batch = padded([each.ids for each in flat], [each.labels for each in flat], self.pad_token)
        role = torch.tensor([each.role for each in flat])
        batch["attention_mask"] *= (role != NONE)[:, None]
        return {name: each.unflatten(0, (len(rows), most)) for name, each in (*batch.items(), ("role", role))}

    def _read(self, row: Mapping[str, Any]) -> Row:
        """Return the row of encoded examples, without negatives that equal a positive. A passage that was cut ends with the
        closing tokens all the same."""
        template, query, passages = self.template, list[int](), list[Passage]()
        for role, ids, labels in zip(row["columns"], row["input_ids"], row["labels"], strict=True):
            if role is None:
                continue
            start = next(at for at, label in enumerate(labels) if label != IGNORED)
            query = ids[len(template.before) : start - len(template.between)]
            closed = len(ids) - len(template.after)
            passages.append(self._passage(query, ids[start:closed], ROLES[TextRole(role)]))
        positives = [each.tokens for each in passages if each.role == POSITIVE]
        return Row(query, [each for each in passages if each.role == POSITIVE or each.tokens not in positives])

    def _passage(self, query: list[int], tokens: list[int], role: int) -> Passage:
        ids = self.template.joined(query, tokens)
        return Passage(tokens, role, ids, ids)

    def _of_others(self, row: Row, rows: Sequence[Row]) -> list[Passage]:
        """Return the positives of the other rows as negatives of a row: once each, if they fit beside its query.

        Left out are passages that the row has itself, and the positives of an equal query.
        """
        if not row.passages:
            return []
        known = {tuple(each.tokens) for each in row.passages}
        found: dict[tuple[int, ...], Passage] = {}
        for other in rows:
            for tokens in other.positives if other.query != row.query else []:
                key = tuple(tokens)
                if key in known or key in found:
                    continue
                passage = self._passage(row.query, tokens, NEGATIVE)
                if len(passage.ids) <= self.most:
                    found[key] = passage
        return list(found.values())


def build_trainer(setup: Setup, in_batch: bool, loss: Loss) -> RankTrainer:
    """Return the trainer. `in_batch`: whether the positives of other rows are negatives."""
    length = setup.job.training.max_length
    most = min(length, positions(setup.model.config) or length)
    joiner = Joiner(pair_template(setup.tokenizer), setup.tokenizer.pad_token_id, most, in_batch)
    return RankTrainer(**trainer_options(setup), data_collator=joiner, loss=loss)
