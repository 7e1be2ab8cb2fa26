"""Texts that are compared, as a dataset of rows: an anchor with its positives and negatives, or a query joined with each passage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy
import pyarrow.compute

from tunesmith_runtime.data.encoders.texts import TextRole
from tunesmith_runtime.data.example_file import example_lengths

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray
    from pyarrow import Table


STARTS = pyarrow.array([str(TextRole.ANCHOR), str(TextRole.FIRST)])
"""Roles with which a row begins."""


class TextGroups:
    """Examples by rows: each begins with one of STARTS, or is a row without a role, which fills up a batch."""

    column_names = ("input_ids", "labels", "value", "columns")

    def __init__(self, examples: Dataset) -> None:
        self.examples = examples
        self._bounds = [*row_starts(examples.data).tolist(), len(examples)]

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Each column as a list, with an entry for each text of the row."""
        row: dict[str, Any] = self.examples[self._bounds[index] : self._bounds[index + 1]]
        return row

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of the longest text of each row."""
        lengths = numpy.asarray(example_lengths(self.examples.data))
        return numpy.maximum.reduceat(lengths, self._bounds[:-1]).tolist() if len(lengths) else []


def row_starts(columns: Table) -> NDArray[numpy.int64]:
    """Return the index of the first example of each row."""
    roles = columns["columns"]
    is_start = pyarrow.compute.or_(pyarrow.compute.is_in(roles, value_set=STARTS), pyarrow.compute.is_null(roles))
    return numpy.flatnonzero(is_start.to_numpy())
