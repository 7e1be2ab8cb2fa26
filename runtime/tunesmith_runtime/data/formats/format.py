"""The description of a row format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith_api.training import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.records import Record
from tunesmith_runtime.data.row_fields import has


def _unchanged(turns: Any) -> Any:
    return turns


@dataclass(frozen=True)
class Format:
    """How rows of a format are recognized, which of their keys are read, and which records they yield."""

    name: RowFormat
    records: frozenset[type[Record]]
    """Types of the records that `read` returns."""
    keys: tuple[str, ...]
    """A row that has all of them is in this format."""
    expected: str
    """The shape of a row, for messages."""
    known: frozenset[str]
    """All keys that are read."""
    read: Callable[[dict[str, Any]], Record | DropReason]
    """Read a row that has `keys`. Raises RowError."""
    message_keys: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Keys that hold lists of messages, and the keys that are read of each message."""
    as_messages: Callable[[Any], Any] = _unchanged
    """Give the turns of such a list the keys of messages."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has the keys of this format."""
        return has(row, *self.keys)
