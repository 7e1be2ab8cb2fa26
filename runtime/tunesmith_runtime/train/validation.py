"""The validation loss: the mean over the rows held out, or over their tokens, however they are spread over batches and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import TrainerControl

from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.checkpoint import StopEvaluation
from tunesmith_runtime.train.rows.batches import InOrder
from tunesmith_runtime.train.rows.forms import fill_batches
from tunesmith_runtime.train.strategies.sharding import ShardingMixin

SET_LOSS = "eval_loss_"
"""Name of the loss of a validation set in the log, before the set's index."""


@dataclass(frozen=True)
class Measured:
    """The sum of losses, and the number of rows or tokens that have them."""

    total: float = 0.0
    count: float = 0.0

    def __add__(self, other: Measured) -> Measured:
        return Measured(self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> float:
        """Their mean; 0 of nothing."""
        return self.total / max(1.0, self.count)


class ValidationMixin(ShardingMixin):
    """Measures the validation loss. Several processes fill up their last batches with a row that counts nothing."""

    control: TrainerControl
    processing_class: Any
    validation_sets: Sequence[Any] = ()
    """The parts of `eval_dataset` that have separate losses; empty: it is one part."""
    measured = Measured()
    """The losses of the latest evaluation."""

    def counted(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the number of items that the loss of a batch is the mean over: by default the labelled tokens."""
        return labelled_tokens(inputs)

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Measure the validation loss; return an empty dictionary if SIGTERM interrupts it.

        Random states stay unchanged (a DataLoader draws from them), so that training continues the same without it.
        """
        try:
            with torch.random.fork_rng():
                return self._evaluate_sets() if self.validation_sets else super().evaluate(*arguments, **options)
        except StopEvaluation:
            return {}

    def evaluation_loop(self, *arguments: Any, **options: Any) -> Any:
        """Measure the loss of the rows of a DataLoader."""
        self.measured = Measured()
        output = super().evaluation_loop(*arguments, **options)
        sums = torch.tensor([self.measured.total, self.measured.count], device=self.args.device)
        self.measured = Measured(*self.accelerator.reduce(sums, "sum").tolist())
        output.metrics["eval_loss"] = self.measured.mean
        return output

    def prediction_step(self, model: nn.Module, inputs: Any, *_: Any, **__: Any) -> tuple[None, None, None]:
        """Add the loss of a batch to the sum of the evaluation. The Trainer's own method would give batches equal
        weights."""
        prepared = self._prepare_inputs(inputs)
        count = int(self.counted(prepared))
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.measured_loss(model, prepared)
        if count:
            self.measured += Measured(float(loss) * count, count)
        return None, None, None

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return the batches of validation rows, by default of all. Several processes take whole batches in turn."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if self.group.size > 1:
            rows = fill_batches(rows, self.processing_class.pad_token_id)
        return super().get_eval_dataloader(rows)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler[int]:
        """Rows in their order."""
        rows: Any = eval_dataset
        if self.group.size == 1:
            return InOrder(len(rows))
        return InOrder(len(rows) - 1, self.args.eval_batch_size * self.group.replicas)

    def _evaluate_sets(self) -> dict[str, float]:
        """Measure and log the loss of each validation set, and the loss of all their rows."""
        sets = [self._measure_set(part) for part in self.validation_sets]
        losses = {"eval_loss": sum(sets, Measured()).mean}
        losses |= {f"{SET_LOSS}{index}": measured.mean for index, measured in enumerate(sets)}
        self.log(losses)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, losses)
        return losses

    def _measure_set(self, rows: Any) -> Measured:
        """Measure the losses of rows."""
        self.evaluation_loop(self.get_eval_dataloader(rows), "Evaluation", prediction_loss_only=True)
        return self.measured


def labelled_tokens(inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the number of tokens of a batch that are predicted. Nothing predicts the first one of a sequence."""
    return (inputs["labels"][:, 1:] != IGNORED).sum()
