"""Preferences as a dataset of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from tunesmith_runtime.data.example_file import example_lengths

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor


class Pairs:
    """Examples two by two: row i has the examples 2 i, the chosen answer, and 2 i + 1, the rejected answer."""

    column_names = ("input_ids", "labels", "value", "media")

    def __init__(self, examples: Dataset, reference: Tensor | None = None) -> None:
        """`reference`: log-probabilities (pairs, 2) of both answers by a reference model. Those of further rows are 0."""
        self.examples, self.reference = examples, reference

    def __len__(self) -> int:
        return len(self.examples) // 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Each column as a list of two: of the chosen answer, and of the rejected answer."""
        row: dict[str, Any] = self.examples[2 * index : 2 * index + 2]
        if self.reference is not None:
            row["reference"] = self.reference[index].tolist() if index < len(self.reference) else [0.0, 0.0]
        return row

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of the longer example of each pair."""
        lengths = numpy.asarray(example_lengths(self.examples.data)).reshape(-1, 2)
        return lengths.max(axis=1).tolist() if len(lengths) else []
