"""Base of trainers with a loss that is a mean over rows, not over tokens: the division of the loss, and metrics of the
rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.rows.forms import fill_batches
from tunesmith_runtime.train.trainers.base import RunMixin

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup

TALLY = "tally"
"""Name of the sums among the recorded metrics."""


class RowLoss(RunMixin):
    """The loss of a step is the mean over its rows, however they are spread over micro batches and devices.

    Batches have labels of the shape (rows, 2, length). A row without a label fills up a batch and counts nothing.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._metrics: dict[str, dict[str, list[Tensor]]] = {"train": {}, "eval": {}}
        super().__init__(*arguments, **options)
        self.model_accepts_loss_kwargs = True  # or the Trainer would divide the loss by the number of micro batches

    def mean_over_rows(self, losses: Tensor, rows_of_step: Tensor | None) -> Tensor:
        """Return the mean of the losses of a micro batch, (rows,); or their part of the mean over `rows_of_step` rows."""
        if rows_of_step is None:
            return losses.sum() / max(1, len(losses))
        return losses.sum() / rows_of_step * self.group.size  # DDP averages the gradients of all processes

    def record(self, values: Mapping[str, Tensor]) -> None:
        """Record metrics of the rows of a micro batch, each (rows,), for the next log."""
        for name, each in values.items():
            total = each.detach().float().sum()
            self._recorded.setdefault(name, []).append(torch.stack([total, total.new_tensor(float(len(each)))]))

    def tally(self, sums: Tensor) -> None:
        """Add sums over the rows of a micro batch to those of the next log. `figures` computes metrics from them."""
        before = self._recorded.get(TALLY)
        self._recorded[TALLY] = [sums if before is None else before[0] + sums]

    def figures(self, sums: Tensor) -> dict[str, float]:
        """Return metrics by the sums over all rows that `tally` took. For methods that take some."""
        raise NotImplementedError

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the means over the rows of all processes since the last log, for validation rows with the prefix `eval_`."""
        prefix = "" if self.model.training else "eval_"
        if tally := self._recorded.pop(TALLY, None):
            found = self.figures(self.accelerator.reduce(tally[0], "sum"))
            logs.update({f"{prefix}{name}": value for name, value in found.items()})
        for name in sorted(self._recorded):
            total, count = self.accelerator.reduce(torch.stack(self._recorded[name]).sum(dim=0), "sum").tolist()
            if count:
                logs[f"{prefix}{name}"] = total / count
        self._recorded.clear()
        super().log(logs, start_time)

    @property
    def _recorded(self) -> dict[str, list[Tensor]]:
        """Sums and counts of the metrics of training or of validation, by the mode that the model is in."""
        return self._metrics["train" if self.model.training else "eval"]

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Count the tokens of rows, without those of blank rows."""
        super()._track_num_input_tokens({**inputs, "attention_mask": inputs["attention_mask"][is_row(inputs)]})

    def counted(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the number of rows of a micro batch."""
        return is_row(inputs).sum()

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor:
        """Return the number of rows of a step, over all processes."""
        counts = sum(self.counted(batch) for batch in batch_samples)
        return self.accelerator.reduce(torch.as_tensor(counts, device=device), "sum")  # type: ignore[no-any-return]


def trainer_options(setup: Setup) -> dict[str, Any]:
    """Return the options of all trainers with such a loss. With several processes, a blank row fills up batches."""
    from transformers import TrainingArguments

    rows = setup.train_dataset
    return {
        "model": setup.model,
        "args": TrainingArguments(**setup.arguments, remove_unused_columns=False, label_names=["labels"]),
        "train_dataset": fill_batches(rows, setup.tokenizer.pad_token_id) if setup.group.size > 1 else rows,
        "eval_dataset": setup.eval_dataset,
        "processing_class": setup.tokenizer,
        "callbacks": list(setup.callbacks),
        "group": setup.group,
    }


def sequences_at(inputs: Mapping[str, Tensor], places: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return `places`, (rows, sequences), and the input_ids and attention_mask of the sequences there, each (count, length).

    The first place is added, so that the model has a sequence in a batch of blank rows too.
    """
    filled, mask = places.clone(), inputs["attention_mask"].clone()
    filled[0, 0], mask[0, 0, 0] = True, 1
    return filled, {"input_ids": inputs["input_ids"][filled], "attention_mask": mask[filled]}


def is_row(inputs: Mapping[str, Tensor]) -> Tensor:
    """Return for each row of a batch whether it has a label, (rows,). One without fills up a batch."""
    return (inputs["labels"] != IGNORED).flatten(1).any(dim=1)
