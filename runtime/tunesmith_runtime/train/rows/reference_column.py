"""Log-probabilities of a reference model as a column beside pairs of answers: computed once, and saved with each checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from tunesmith_runtime.data.pairs import Pairs

if TYPE_CHECKING:
    from tunesmith_runtime.train.trainers.preference import PreferenceTrainer

FILE = "reference.safetensors"
"""File of a checkpoint: a tensor (pairs, 2) for each set of rows."""


class AddColumns(TrainerCallback):  # type: ignore[misc]
    """Adds the column to all rows when the model is prepared, before the first step."""

    def __init__(self, trainer: PreferenceTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, *_: object, **__: object) -> None:
        """Pass all rows through the reference."""
        for rows in pairs_of(self._trainer):
            rows.reference = reference_column(self._trainer, rows)


def pairs_of(trainer: PreferenceTrainer) -> list[Pairs]:
    """Return the training rows, and those of validation as a whole and by their sets."""
    found = (trainer.train_dataset, trainer.eval_dataset, *trainer.validation_sets)
    return [rows for rows in found if isinstance(rows, Pairs)]


def reference_column(trainer: PreferenceTrainer, rows: Pairs) -> Tensor:
    """Return the log-probabilities (pairs, 2) of both answers of each pair, which the replicas compute in turn, in every process.

    The longest rows come first, so that a lack of memory shows at once.
    """
    group, size, lengths = trainer.group, trainer.args.per_device_train_batch_size, rows.lengths
    order = sorted(range(len(rows)), key=lengths.__getitem__, reverse=True)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    column = torch.zeros(len(rows), 2, device=trainer.args.device)
    for start in range(0, len(batches), group.replicas):
        own = start + group.replica
        indices = batches[min(own, len(batches) - 1)]  # all processes compute equally often
        sums = trainer.reference_sums([rows[index] for index in indices])
        if own < len(batches) and group.rank % group.sharing == 0:
            column[indices] = sums
    total: Tensor = trainer.accelerator.reduce(column, "sum")
    return total.cpu()


def save_columns(folder: Path, sets: Sequence[Pairs]) -> None:
    """Write the columns of all rows into the folder of a checkpoint."""
    save_file({str(at): rows.reference for at, rows in enumerate(sets) if rows.reference is not None}, folder / FILE)


def load_columns(folder: Path, sets: Sequence[Pairs]) -> None:
    """Read the columns of a checkpoint."""
    columns = load_file(folder / FILE)
    for at, rows in enumerate(sets):
        rows.reference = columns[str(at)]
