"""The trainer of reward models: scores of both answers of a pair, from a head on the last token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith_runtime.tasks import REWARD
from tunesmith_runtime.train.models.head import find_head, head_logits
from tunesmith_runtime.train.trainers.preference import CHOSEN, REJECTED, collate
from tunesmith_runtime.train.trainers.row_loss import RowLoss, is_row, trainer_options

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup


@dataclass(frozen=True)
class Scores:
    """Scores of a batch of pairs; each tensor is (pairs,)."""

    chosen: Tensor
    rejected: Tensor
    margin: Tensor
    """Difference between the two answers that the row states; 0 if the row states none."""


class ScoreTrainer(RowLoss):
    """Takes both answers of each pair through the model in one batch."""

    def __init__(self, *arguments: Any, loss: Callable[[Scores], Tensor], **options: Any) -> None:
        self._loss = loss
        super().__init__(*arguments, **options)
        self._head = find_head(self.model, REWARD)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss of the pairs."""
        used = is_row(inputs)
        sequences = {name: inputs[name].flatten(0, 1) for name in ("input_ids", "attention_mask")}
        scored = head_logits(model, self._head, sequences)[:, 0]
        scores = Scores(scored[CHOSEN][used], scored[REJECTED][used], inputs["margin"][used])
        self._record(scores)
        loss = self.mean_over_rows(self._loss(scores), num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def _record(self, scores: Scores) -> None:
        chosen, rejected = scores.chosen.detach(), scores.rejected.detach()
        self.record(
            {
                "rewards/chosen": chosen,
                "rewards/rejected": rejected,
                "rewards/margins": chosen - rejected,
                "rewards/accuracies": chosen > rejected,
            }
        )


def build_trainer(setup: Setup, loss: Callable[[Scores], Tensor]) -> ScoreTrainer:
    """Return the trainer of a loss."""
    token = setup.tokenizer.pad_token_id
    return ScoreTrainer(**trainer_options(setup), data_collator=lambda rows: collate_pairs(rows, token), loss=loss)


def collate_pairs(rows: list[dict[str, Any]], pad_token: int) -> dict[str, Tensor]:
    """Return a batch: the sequences of `collate`, and the margin of each row, (rows,)."""
    margins = [row["value"][0] or 0.0 if "value" in row else 0.0 for row in rows]
    return {**collate(rows, pad_token), "margin": torch.tensor(margins, dtype=torch.float32)}
