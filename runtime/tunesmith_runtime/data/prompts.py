"""Prompts whose answers the model writes itself, as a dataset."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith_runtime.data.example_file import example_lengths

if TYPE_CHECKING:
    from datasets import Dataset


class Prompts:
    """Each prompt as a group of rows, one for each completion: the rows of prompt p begin at index p * group."""

    column_names = ("input_ids", "prompt", "tools", "columns", "index", "media")

    def __init__(self, examples: Dataset, group: int) -> None:
        self.examples, self.group = examples, group

    def __len__(self) -> int:
        return len(self.examples) * self.group

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The tokens of the prompt, the prompt, its tools and the columns that rewards read, and the index. A row that fills up a
        batch has no columns."""
        row = self.examples[index // self.group]
        read = json.loads(row["columns"]) if row["columns"] else {"columns": None}
        return {"input_ids": row["input_ids"], "index": index, "media": row.get("media"), **read}

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of the prompt of each row."""
        return array("i", (length for length in example_lengths(self.examples.data) for _ in range(self.group)))
