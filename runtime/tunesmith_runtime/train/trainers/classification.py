"""The trainer of models that classify texts or give them numbers, from a head on the last token."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from transformers import PretrainedConfig

from tunesmith_api.methods import Classify, Problem
from tunesmith_runtime.tasks import CLASSIFY
from tunesmith_runtime.train.models.head import find_head, head_logits
from tunesmith_runtime.train.rows.batches import padded
from tunesmith_runtime.train.rows.labels import TYPES, as_list, index_of, numbers_of
from tunesmith_runtime.train.trainers.row_loss import RowLoss, is_row, trainer_options

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup

PROBLEMS = {name: problem for problem, name in TYPES.items()}
"""Problems by their names in config.json."""
Loss = Callable[[Tensor, Tensor], Tensor]


class LabelTrainer(RowLoss):
    """Takes texts through the model, and compares its logits with the targets of the rows."""

    def __init__(self, *arguments: Any, problem: Problem, loss: Loss, **options: Any) -> None:
        self._problem, self._loss = problem, loss
        super().__init__(*arguments, **options)
        self._head = find_head(self.model, CLASSIFY)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss of the rows."""
        used = is_row(inputs)
        logits, targets = head_logits(model, self._head, inputs)[used], inputs["target"][used]
        self._record(logits.detach(), targets)
        loss = self.mean_over_rows(self._loss(logits, targets), num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def figures(self, sums: Tensor) -> dict[str, float]:
        """Return the F1 of the classes, or the correlation of the numbers."""
        if self._problem is Problem.REGRESSION:
            return {"correlation": correlation(sums)}
        return {"f1": macro_f1(sums)}

    def _record(self, logits: Tensor, targets: Tensor) -> None:
        if self._problem is Problem.REGRESSION:
            self.tally(moments(logits, targets))
            return
        predicted = logits > 0
        if self._problem is Problem.SINGLE_LABEL:
            predicted = one_hot(logits.argmax(dim=1), logits.shape[1]).bool()
        self.record({"accuracy": (predicted == targets.bool()).all(dim=1)})
        self.tally(class_counts(predicted, targets.bool()))


def class_counts(predicted: Tensor, actual: Tensor) -> Tensor:
    """Return for each class the rows that have it and are given it, that are given it, and that have it: (classes, 3).

    Both arguments: (rows, classes), bool.
    """
    return torch.stack([(predicted & actual).sum(dim=0), predicted.sum(dim=0), actual.sum(dim=0)], dim=1)


def macro_f1(counts: Tensor) -> float:
    """Return the mean of the F1 over the classes that rows have or are given, of `class_counts`; 0 without one."""
    right, given, had = counts.double().unbind(dim=1)
    occurs = given + had > 0
    return float((2 * right / (given + had))[occurs].mean()) if occurs.any() else 0.0


def moments(x: Tensor, y: Tensor) -> Tensor:
    """Return the sums that `correlation` reads, of x and y, (rows, numbers): (numbers, 6), in float64."""
    x, y = x.double(), y.double()
    return torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y]).sum(dim=1).T


def correlation(sums: Tensor) -> float:
    """Return Pearson's correlation, the mean over the numbers of a row; 0 where one of both is constant."""
    count, x, y, xx, yy, xy = sums.unbind(dim=1)
    spread = ((count * xx - x * x).clamp(min=0) * (count * yy - y * y).clamp(min=0)).sqrt()
    found = torch.where(spread > 0, (count * xy - x * y) / spread.clamp(min=torch.finfo(spread.dtype).tiny), 0.0)
    return float(found.clamp(-1, 1).mean())


def build_trainer(setup: Setup, losses: Mapping[Problem, Loss]) -> LabelTrainer:
    """Return the trainer, by the problem and the classes in the model's config."""
    token, config = setup.tokenizer.pad_token_id, setup.model.config
    problem = PROBLEMS[config.problem_type]
    are_named = bool((setup.job.classify or Classify()).labels)
    return LabelTrainer(
        **trainer_options(setup),
        data_collator=lambda rows: collate(rows, token, target_maker(config, are_named)),
        problem=problem,
        loss=losses[problem],
    )


def target_maker(config: PretrainedConfig, are_named: bool) -> Callable[[str | None], list[float]]:
    """Return the function that makes the target of a row, a number for each output of the model, from its label.

    `are_named`: whether the classes are those of classify.labels. A label is JSON; a row that fills up a batch has no
    label.
    """
    classes = [config.id2label[index] for index in range(config.num_labels)]

    def target(label: str | None) -> list[float]:
        if label is None:
            return [0.0] * len(classes)
        if PROBLEMS[config.problem_type] is Problem.REGRESSION:
            return numbers_of(json.loads(label))
        own = {index_of(each, classes, are_named) for each in as_list(json.loads(label))}
        return [float(index in own) for index in range(len(classes))]

    return target


def collate(
    rows: list[dict[str, Any]], pad_token: int, target: Callable[[str | None], list[float]]
) -> dict[str, Tensor]:
    """Return a batch: the sequences of `padded`, and the target of each row, (rows, outputs)."""
    batch = padded([row["input_ids"] for row in rows], [row["labels"] for row in rows], pad_token)
    return {**batch, "target": torch.tensor([target(row["columns"]) for row in rows], dtype=torch.float32)}
