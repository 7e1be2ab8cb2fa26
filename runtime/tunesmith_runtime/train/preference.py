"""The trainer of the methods that learn from preferences: DPO, ORPO, SimPO and CPO differ in their objective alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith_runtime.train.batches import padded
from tunesmith_runtime.train.log_probs import LogProbs, answer_log_probs
from tunesmith_runtime.train.row_loss import RowLoss, is_row, trainer_options

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup
    from tunesmith_runtime.train.reference import Reference

CHOSEN, REJECTED = slice(0, None, 2), slice(1, None, 2)


@dataclass(frozen=True)
class Answers:
    """Log-probabilities of the chosen and the rejected answers of a batch; each tensor is (pairs,)."""

    chosen: LogProbs
    rejected: LogProbs
    reference_chosen: LogProbs | None = None
    """Those of the reference model, for an objective that has one."""
    reference_rejected: LogProbs | None = None


@dataclass(frozen=True)
class Objective:
    """What a method minimizes."""

    loss: Callable[[Answers], Tensor]
    """Return the loss of each pair, (pairs,)."""
    rewards: Callable[[Answers], tuple[Tensor, Tensor]]
    """Return the rewards of the chosen and the rejected answers that the model implies, each (pairs,). For metrics."""
    reference: Reference | None = None


class PreferenceTrainer(RowLoss):
    """Takes both answers of each pair through the model in one batch."""

    def __init__(self, *arguments: Any, objective: Objective, **options: Any) -> None:
        self.objective = objective
        super().__init__(*arguments, **options)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss of the pairs."""
        answers = self.answers(model, {name: each.flatten(0, 1) for name, each in inputs.items()})
        used = is_row(inputs)
        self._record(answers, used)
        loss = self.mean_over_rows(self.objective.loss(answers)[used], num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def answers(self, model: nn.Module, inputs: dict[str, Tensor]) -> Answers:
        """Return the log-probabilities of a batch: `inputs` are (2 pairs, length), chosen and rejected in turn."""
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        policy = answer_log_probs(model, head, inputs)
        if self.objective.reference is None:
            return Answers(policy.select(CHOSEN), policy.select(REJECTED))
        with self.accelerator.autocast():
            reference = self.objective.reference(inputs)
        return Answers(*(each.select(part) for each in (policy, reference) for part in (CHOSEN, REJECTED)))

    def _record(self, answers: Answers, used: Tensor) -> None:
        with torch.no_grad():
            chosen, rejected = (rewards[used] for rewards in self.objective.rewards(answers))
            self.record(
                {
                    "rewards/chosen": chosen,
                    "rewards/rejected": rejected,
                    "rewards/margins": chosen - rejected,
                    "rewards/accuracies": chosen > rejected,
                    "logps/chosen": answers.chosen.sums[used],
                    "logps/rejected": answers.rejected.sums[used],
                }
            )


def build_trainer(setup: Setup, objective: Objective) -> PreferenceTrainer:
    """Return the trainer of an objective."""
    token = setup.tokenizer.pad_token_id
    return PreferenceTrainer(
        **trainer_options(setup), data_collator=lambda rows: collate(rows, token), objective=objective
    )


def collate(rows: list[dict[str, Any]], pad_token: int) -> dict[str, Tensor]:
    """Return a batch of rows of two sequences: input_ids, attention_mask and labels, each (rows, 2, length)."""
    ids, labels = ([each for row in rows for each in row[name]] for name in ("input_ids", "labels"))
    return {name: each.unflatten(0, (len(rows), 2)) for name, each in padded(ids, labels, pad_token).items()}
