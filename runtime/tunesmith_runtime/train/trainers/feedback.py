"""The trainer of KTO: answers that are good or bad, beside answers to other prompts, which estimate the KL divergence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.losses.log_probs import answer_log_probs
from tunesmith_runtime.train.rows.media_batches import MEDIA, with_media
from tunesmith_runtime.train.trainers.preference import collate
from tunesmith_runtime.train.trainers.row_loss import RowLoss, is_row, trainer_options

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup
    from tunesmith_runtime.train.models.reference import Reference


@dataclass(frozen=True)
class Rated:
    """Log-ratios of a batch of answers to the reference."""

    ratios: Tensor
    """Of each answer, (rows,)."""
    is_good: Tensor
    """Whether the answer is good, (rows,)."""
    divergence: Tensor
    """Estimate of the KL divergence from the reference, a number of at least 0 without a gradient."""


class FeedbackTrainer(RowLoss):
    """Takes each answer through the model, and, without gradients, an answer to another prompt of the batch."""

    def __init__(
        self, *arguments: Any, loss: Callable[[Rated], Tensor], beta: float, reference: Reference, **options: Any
    ) -> None:
        self._loss, self._beta, self._reference = loss, beta, reference
        super().__init__(*arguments, **options)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss of the answers."""
        is_good = inputs.pop("is_good")
        own, other = (sequence_at(index, inputs) for index in (0, 1))
        used = is_row(own)
        plain = self.accelerator.unwrap_model(model)
        with torch.no_grad():
            divergence = self._divergence(plain, other)
        ratios = self._ratios(model, plain, own)
        rated = Rated(ratios[used], is_good[used], divergence)
        self._record(rated)
        loss = self.mean_over_rows(self._loss(rated), num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Count the tokens of the rows themselves."""
        super()._track_num_input_tokens(
            {name: inputs[name][:, :1] for name in ("input_ids", "labels", "attention_mask")}
        )

    def _ratios(self, model: nn.Module, plain: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Return the log-ratio of each answer, (rows,). `plain` is `model` without its wrapper."""
        policy = answer_log_probs(model, plain.get_output_embeddings(), inputs)
        with self.accelerator.autocast():
            return policy.sums - self._reference(inputs).sums

    def _divergence(self, plain: Any, other: dict[str, Tensor]) -> Tensor:
        """Return the mean log-ratio of answers to other prompts, 0 where there are none: in training over all processes."""
        with self.accelerator.autocast():
            ratios = self._ratios(plain, plain, other)[is_row(other)]
        total = torch.stack([ratios.sum(), ratios.new_tensor(float(len(ratios)))])
        mean, count = self.accelerator.reduce(total, "sum") if self.model.training else total
        return (mean / count.clamp(min=1)).clamp(min=0)

    def _record(self, rated: Rated) -> None:
        rewards = self._beta * rated.ratios.detach()
        self.record(
            {
                "rewards/chosen": rewards[rated.is_good],
                "rewards/rejected": rewards[~rated.is_good],
                "kl": rated.divergence.expand(len(rewards)),
            }
        )


def sequence_at(index: int, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sequence of each row at `index`. Both have the prompt of the row, and so its images."""
    return {name: each if name == MEDIA else each[:, index] for name, each in inputs.items()}


def build_trainer(setup: Setup, loss: Callable[[Rated], Tensor], beta: float, reference: Reference) -> FeedbackTrainer:
    """Return the trainer of a loss."""
    token = setup.tokenizer.pad_token_id
    return FeedbackTrainer(
        **trainer_options(setup),
        data_collator=with_media(lambda rows: collate_feedback(rows, token), setup.media),
        loss=loss,
        beta=beta,
        reference=reference,
    )


def collate_feedback(rows: list[dict[str, Any]], pad_token: int) -> dict[str, Tensor]:
    """Return a batch: sequences as of `collate`, each answer beside that of its neighbour; is_good, (rows,)."""
    longest = max(len(row["input_ids"]) for row in rows)
    real = [row for row in rows if answer_start(row) < len(row["labels"])]  # blank rows come last
    others = [mismatched(row, neighbour(real, index), longest) for index, row in enumerate(rows)]
    pairs = [
        {name: [row[name], other[name]] for name in ("input_ids", "labels")}
        for row, other in zip(rows, others, strict=True)
    ]
    return {**collate(pairs, pad_token), "is_good": torch.tensor([bool(row["value"]) for row in rows])}


def neighbour(real: list[dict[str, Any]], index: int) -> dict[str, Any] | None:
    """Return the nearest of the rows before `index`, and then of those after it, that has another prompt and another answer; None
    if there is none, as for a blank row. z is the mean over unrelated answers, so answers to the same prompt do not count."""
    if index >= len(real):
        return None
    prompt, answer = parts(real[index])
    candidates = (real[index - distance] for distance in range(1, len(real)))
    return next((row for row in candidates if parts(row)[0] != prompt and parts(row)[1] != answer), None)


def mismatched(row: dict[str, Any], other: dict[str, Any] | None, length: int) -> dict[str, list[int]]:
    """Return the prompt of a row with the answer of another, cut to `length` tokens; the row without labels where there is no other."""
    if other is None:
        return {"input_ids": row["input_ids"], "labels": [IGNORED] * len(row["labels"])}
    (prompt, _), (_, answer) = parts(row), parts(other)
    labels = [*[IGNORED] * len(prompt), *other["labels"][answer_start(other) :]]
    return {"input_ids": [*prompt, *answer][:length], "labels": labels[:length]}


def parts(row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Return the tokens of the prompt and those of the answer."""
    start = answer_start(row)
    return row["input_ids"][:start], row["input_ids"][start:]


def answer_start(row: dict[str, Any]) -> int:
    """Return the index of the first token that is learned; the length of a row without one."""
    return next((at for at, label in enumerate(row["labels"]) if label != IGNORED), len(row["labels"]))
