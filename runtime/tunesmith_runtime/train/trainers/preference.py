"""The trainer of the methods that learn from preferences: DPO, ORPO, SimPO and CPO differ only in their objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tunesmith_runtime.train.losses.log_probs import LogProbs, answer_log_probs
from tunesmith_runtime.train.rows.batches import padded
from tunesmith_runtime.train.rows.media_batches import by_sequence, with_media
from tunesmith_runtime.train.rows.reference_column import AddColumns, load_columns, pairs_of, save_columns
from tunesmith_runtime.train.trainers.row_loss import RowLoss, is_row, trainer_options

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup
    from tunesmith_runtime.train.models.reference import Reference

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
    """Loss of a method."""

    loss: Callable[[Answers], Tensor]
    """Return the loss of each pair, (pairs,)."""
    rewards: Callable[[Answers], tuple[Tensor, Tensor]]
    """Return the rewards of the chosen and the rejected answers that the model implies, each (pairs,). For metrics."""
    reference: Reference | None = None
    precomputes: bool = False
    """Whether the reference is computed before the first step, while the model is the reference, and not in each step."""


class PreferenceTrainer(RowLoss):
    """Takes both answers of each pair through the model in one batch."""

    def __init__(self, *arguments: Any, objective: Objective, **options: Any) -> None:
        self.objective = objective
        super().__init__(*arguments, **options)

    def start(self, checkpoint: Path | None) -> None:
        """Train from the beginning, after a pass through the reference if it is precomputed; or resume from a checkpoint."""
        if self.objective.precomputes and checkpoint is None:
            self.add_callback(AddColumns(self))
        super().start(checkpoint)

    def resume(self, folder: Path) -> None:
        """Resume from a checkpoint, which has the precomputed reference."""
        if self.objective.precomputes:
            load_columns(folder, pairs_of(self))
        super().resume(folder)

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        """Save the precomputed reference with the state of the Trainer."""
        super()._save_checkpoint(*arguments, **options)
        if self.objective.precomputes and self.args.should_save:
            folder = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            save_columns(folder, pairs_of(self))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss of the pairs."""
        answers = self.answers(model, by_sequence(inputs))
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
        if self.objective.precomputes:
            reference = LogProbs(inputs["reference"], policy.tokens)
        else:
            reference = self._by_reference(self.objective.reference, inputs)
        return Answers(*(each.select(part) for each in (policy, reference) for part in (CHOSEN, REJECTED)))

    def reference_sums(self, rows: list[dict[str, Any]]) -> Tensor:
        """Return the log-probabilities (pairs, 2) of both answers of pairs by the reference."""
        assert self.objective.reference
        inputs = self._prepare_inputs(self.data_collator(rows))
        return self._by_reference(self.objective.reference, by_sequence(inputs)).sums.unflatten(0, (len(rows), 2))

    def _by_reference(self, reference: Reference, inputs: dict[str, Tensor]) -> LogProbs:
        with self.accelerator.autocast():
            return reference(inputs)

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
        **trainer_options(setup),
        data_collator=with_media(lambda rows: collate(rows, token), setup.media),
        objective=objective,
    )


def collate(rows: list[dict[str, Any]], pad_token: int) -> dict[str, Tensor]:
    """Return a batch of rows of two sequences: input_ids, attention_mask and labels, each (rows, 2, length); and reference, (rows, 2), of
    rows that have it."""
    ids, labels = ([each for row in rows for each in row[name]] for name in ("input_ids", "labels"))
    batch = {name: each.unflatten(0, (len(rows), 2)) for name, each in padded(ids, labels, pad_token).items()}
    return batch | ({"reference": torch.tensor([row["reference"] for row in rows])} if "reference" in rows[0] else {})
