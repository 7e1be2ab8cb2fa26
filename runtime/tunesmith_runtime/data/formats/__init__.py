"""Row formats: one module each with `KEYS` (what a row must have), `EXPECTED` (the sentence), and `read(row)`."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from tunesmith_api.finetunejob import RowFormat
from tunesmith_runtime.data.formats import alpaca, messages, prompt_completion, text
from tunesmith_runtime.data.records import RowError

FORMATS: dict[RowFormat, ModuleType] = {
    RowFormat.MESSAGES: messages,
    RowFormat.PROMPT_COMPLETION: prompt_completion,
    RowFormat.ALPACA: alpaca,
    RowFormat.TEXT: text,
}
"""The formats that SFT learns from, in the order in which they are tried."""


def detect(row: dict[str, Any]) -> RowFormat:
    """The format of `row`: the first one whose keys it has.

    Raises RowError with the keys it has and those it could have.
    """
    for name, module in FORMATS.items():
        if all(key in row for key in module.KEYS):
            return name
    expected = " | ".join(module.EXPECTED for module in FORMATS.values())
    raise RowError(
        f"is in no known format: its keys are {', '.join(row) or 'none'}; expected {expected}; rename with datasets[].columns"
    )


def rename(row: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    """`row` with its columns renamed as {theirName: ourName}; a column that is renamed into replaces its namesake.

    Raises RowError for a column that the row does not have.
    """
    for theirs in columns:
        if theirs not in row:
            raise RowError(
                f"has no '{theirs}', which datasets[].columns renames; its keys are {', '.join(row) or 'none'}"
            )
    kept = {key: value for key, value in row.items() if key not in columns}
    return {**kept, **{ours: row[theirs] for theirs, ours in columns.items()}}
