"""The trainer of embedding models: each anchor is compared with the texts of all rows of a batch, on all devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tunesmith_api.methods import Embed
from tunesmith_runtime.data.encoders.texts import TextRole
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.models.embedding import POOLINGS
from tunesmith_runtime.train.rows.batches import padded
from tunesmith_runtime.train.trainers.classification import correlation, moments
from tunesmith_runtime.train.trainers.row_loss import RowLoss, sequences_at, trainer_options

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup

NONE, ANCHOR, POSITIVE, NEGATIVE = range(4)
ROLES = {TextRole.ANCHOR: ANCHOR, TextRole.POSITIVE: POSITIVE, TextRole.NEGATIVE: NEGATIVE}
"""Numbers of the roles in a batch; NONE fills up rows."""
MOST_SEARCHED = 8192
"""Validation rows that the recall is measured on. Their texts are held in memory."""


@dataclass(frozen=True)
class Texts:
    """Rows of texts, and their vectors. The first text of each row is its anchor."""

    vectors: Tensor
    """(rows, texts, size)."""
    roles: Tensor
    """(rows, texts)."""
    keys: Tensor
    """Equal for equal texts, (rows, texts)."""
    scores: Tensor
    """(rows,); NaN for a row without one."""

    @property
    def anchors(self) -> Tensor:
        """Vectors of the anchors, (rows, size)."""
        return self.vectors[:, 0]

    def without_blanks(self) -> Texts:
        """Return the rows that do not just fill up a batch."""
        rows = self.roles[:, 0] == ANCHOR
        return Texts(self.vectors[rows], self.roles[rows], self.keys[rows], self.scores[rows])


@dataclass(frozen=True)
class Candidates:
    """The texts that anchors are compared with: the positives and negatives of all rows."""

    vectors: Tensor
    """(candidates, size)."""
    is_positive: Tensor
    """Whether it is a positive of the row, (rows, candidates)."""
    is_negative: Tensor
    """Whether it is another text than the anchor and its positives, (rows, candidates)."""


def candidates_of(texts: Texts) -> Candidates:
    """Return the candidates of a batch.

    A text that equals a positive of a row, or its anchor, is no negative of this row, and neither is a positive of an equal anchor:
    in rows that repeat texts, these would be the nearest ones.
    """
    is_candidate = texts.roles > ANCHOR
    owner = is_candidate.nonzero()[:, 0]
    keys, positive = texts.keys[is_candidate], texts.roles[is_candidate] == POSITIVE
    anchors = texts.keys[:, 0]
    is_own = owner == torch.arange(len(anchors), device=owner.device)[:, None]
    is_positive = is_own & positive
    equals_positive = is_positive.float() @ (keys[:, None] == keys).float() > 0
    equals_anchor = keys == anchors[:, None]
    of_equal_anchor = (anchors[owner] == anchors[:, None]) & positive
    return Candidates(texts.vectors[is_candidate], is_positive, ~(equals_positive | equals_anchor | of_equal_anchor))


def cosines(anchors: Tensor, vectors: Tensor) -> Tensor:
    """Return the cosine similarities of (rows, size) and (candidates, size): (rows, candidates), in float32."""
    with torch.autocast(anchors.device.type, enabled=False):  # a small temperature amplifies the rounding of 16 bits
        return normalize(anchors, dim=1) @ normalize(vectors, dim=1).T


Loss = Callable[[Tensor, Candidates, Tensor], Tensor]
"""Returns the loss of each row, (rows,), by its similarities to the candidates, (rows, candidates), and its score, (rows,)."""


class ContrastTrainer(RowLoss):
    """Takes all texts of a batch through the model at once."""

    def __init__(self, *arguments: Any, embed: Embed, sizes: Sequence[int], loss: Loss, **options: Any) -> None:
        self._pool, self._sizes, self._loss = POOLINGS[embed.pooling], sizes, loss
        self._held_out: list[Texts] = []
        super().__init__(*arguments, **options)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss of the rows of all processes, with gradients for the texts of this process only.

        The processes share the vectors without gradients, and each computes the losses of all rows, so that the sum of
        their gradients equals the gradient of a single process. In an evaluation each process compares its own rows, so
        that the loss does not depend on the number of processes.
        """
        own = self._texts(model, inputs)
        texts = self._gathered(own).without_blanks()
        candidates = candidates_of(texts)
        self._record(texts, candidates)
        if not self.model.training and self.group.size > 1:
            texts = own.without_blanks()
            candidates = candidates_of(texts)
        losses = self._losses(texts, candidates)
        shared = self.group.sharing  # the processes that share layers have counted the same rows
        loss = losses.sum() / (max(1, len(losses)) if num_items_in_batch is None else num_items_in_batch / shared)
        summed = loss * self.group.replicas  # DDP averages the gradients of all of them
        loss = summed - (summed - loss).detach()
        return (loss, {}) if return_outputs else loss

    def _losses(self, texts: Texts, candidates: Candidates) -> Tensor:
        """Return the loss of each row, (rows,)."""
        similarities = (cosines(texts.anchors[:, :size], candidates.vectors[:, :size]) for size in self._sizes)
        return torch.stack([self._loss(each, candidates, texts.scores) for each in similarities]).mean(dim=0)

    def figures(self, sums: Tensor) -> dict[str, float]:
        """Return the correlation of similarities with scores."""
        return {"correlation": correlation(sums)}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the recall of the validation rows."""
        if not self.model.training and self._held_out:
            logs["eval_recall"] = recall(self._held_out)
            self._held_out.clear()
        super().log(logs, start_time)

    def dry_pass(self, model: nn.Module) -> None:
        """Forget the rows of the dry pass."""
        super().dry_pass(model)
        self._held_out.clear()

    def _texts(self, model: nn.Module, inputs: dict[str, Tensor]) -> Texts:
        """Return the vectors of this process, in float32; those that fill up a row are 0."""
        roles = inputs["role"]
        filled, texts = sequences_at(inputs, roles != NONE)
        hidden = model(**texts, use_cache=False).last_hidden_state
        pooled = self._pool(hidden.float(), texts["attention_mask"])
        vectors = pooled.new_zeros(*roles.shape, pooled.shape[1])
        vectors[filled] = pooled
        return Texts(vectors, roles, inputs["key"], inputs["score"])

    def _gathered(self, own: Texts) -> Texts:
        """Return the rows of all processes, in their order. Only the vectors of this process have a gradient."""
        if self.group.size == 1:
            return own
        wide = self.accelerator.pad_across_processes(
            {"vectors": own.vectors, "roles": own.roles, "keys": own.keys}, dim=1
        )
        shared = (wide["vectors"].detach(), wide["roles"], wide["keys"], own.scores)
        with self.strategy.counting_rows_once(self):
            texts = Texts(*map(self.accelerator.gather, shared))
        start = self.group.replica * len(own.roles)
        texts.vectors[start : start + len(own.roles)] = wide["vectors"]
        return texts

    @torch.no_grad()
    def _record(self, texts: Texts, candidates: Candidates) -> None:
        if not len(texts.roles):
            return  # blank rows fill up the micro batches of all processes, and cannot show whether rows have scores
        similarities = cosines(texts.anchors, candidates.vectors)
        if not bool(texts.scores.isnan().any()):
            similar = (similarities * candidates.is_positive).sum(dim=1, keepdim=True)
            self.tally(moments(similar, texts.scores[:, None]))
        elif self.model.training:
            self.record({"recall": is_nearest(similarities, candidates)})
        elif sum(len(each.roles) for each in self._held_out) < MOST_SEARCHED:
            own = Texts(texts.vectors.detach().cpu(), texts.roles.cpu(), texts.keys.cpu(), texts.scores.cpu())
            self._held_out.append(own)


def is_nearest(similarities: Tensor, candidates: Candidates) -> Tensor:
    """Return for each row whether one of its positives is nearer than all its negatives, (rows,)."""
    best = similarities.masked_fill(~candidates.is_positive, -math.inf).amax(dim=1)
    return best > similarities.masked_fill(~candidates.is_negative, -math.inf).amax(dim=1)


def recall(parts: Sequence[Texts]) -> float:
    """Return the recall: the share of rows for which the positive is the nearest among the texts of all rows."""
    most = max(part.roles.shape[1] for part in parts)

    def joined(tensors: Sequence[Tensor]) -> Tensor:
        """Join tensors of the shape (rows, texts, ...), with blank texts up to the most of a row."""
        wide = [each.new_zeros(len(each), most, *each.shape[2:]) for each in tensors]
        for into, each in zip(wide, tensors, strict=True):
            into[:, : each.shape[1]] = each
        return torch.cat(wide)

    texts = Texts(
        joined([part.vectors for part in parts]),
        joined([part.roles for part in parts]),
        joined([part.keys for part in parts]),
        torch.cat([part.scores for part in parts]),
    )
    candidates = candidates_of(texts)
    return float(is_nearest(cosines(texts.anchors, candidates.vectors), candidates).float().mean())


def build_trainer(setup: Setup, embed: Embed, sizes: Sequence[int], loss: Loss) -> ContrastTrainer:
    """Return the trainer. `sizes`: lengths of the vectors that the loss is averaged over."""
    token = setup.tokenizer.pad_token_id
    return ContrastTrainer(
        **trainer_options(setup),
        data_collator=lambda rows: collate_texts(rows, token),
        embed=embed,
        sizes=sizes,
        loss=loss,
    )


def collate_texts(rows: list[dict[str, Any]], pad_token: int) -> dict[str, Tensor]:
    """Return a batch: the input_ids, attention_mask and labels of `padded`, each (rows, texts, length); role and key,
    (rows, texts); score, (rows,). Rows with fewer texts are filled up with blank texts."""
    most = max(len(row["input_ids"]) for row in rows)
    blanks = [most - len(row["input_ids"]) for row in rows]
    shape = (len(rows), most)
    ids = [
        each for row, blank in zip(rows, blanks, strict=True) for each in (*row["input_ids"], *[[pad_token]] * blank)
    ]
    labels = [each for row, blank in zip(rows, blanks, strict=True) for each in (*row["labels"], *[[IGNORED]] * blank)]
    roles = [
        ROLES[TextRole(role)] if role else NONE
        for row, blank in zip(rows, blanks, strict=True)
        for role in (*row["columns"], *[None] * blank)
    ]
    batch = {name: each.unflatten(0, shape) for name, each in padded(ids, labels, pad_token).items()}
    role = torch.tensor(roles).unflatten(0, shape)
    batch["attention_mask"] *= (role != NONE)[:, :, None]
    scores = [row["value"][0] if row.get("value") else None for row in rows]
    return {
        **batch,
        "role": role,
        "key": torch.tensor([hash(tuple(each)) for each in ids]).unflatten(0, shape),
        "score": torch.tensor([math.nan if score is None else score for score in scores]),
    }
