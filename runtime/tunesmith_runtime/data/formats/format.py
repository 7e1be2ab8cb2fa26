"""The description of a row format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.refused import REFUSED
from tunesmith_runtime.data.records import Record
from tunesmith_runtime.data.row_fields import has


def _unchanged(turns: Any) -> Any:
    return turns


@dataclass(frozen=True)
class Turns:
    """A key that holds a list of messages."""

    known: frozenset[str]
    """Keys that are read of each message."""
    as_messages: Callable[[Any], Any] = _unchanged
    """Give the turns of such a list the keys of messages."""


@dataclass(frozen=True)
class Format:
    """How rows of a format are recognized, which of their keys are read, and which records they yield."""

    name: str
    """Value of `datasets[].format`, or `template`."""
    records: frozenset[type[Record]]
    """Types of the records that `read` returns."""
    spellings: tuple[tuple[str, ...], ...]
    """A row that has all keys of one of them is in this format."""
    expected: str
    """The shape of a row, for messages."""
    known: frozenset[str]
    """All keys that are read."""
    read: Callable[[dict[str, Any]], Record | DropReason]
    """Read a row that has the keys of a spelling. Raises RowError."""
    rare_spellings: tuple[tuple[str, ...], ...] = ()
    """Like spellings, if the row has the keys of no format's spelling."""
    known_with: Mapping[str, str] = field(default_factory=dict)
    """Keys that are read only beside another key."""
    reads_all: bool = False
    """Whether other keys are read too, as columns for rewards: nearly every row has this format."""
    turns: Mapping[str, Turns] = field(default_factory=dict)
    """Keys that hold lists of messages."""
    refused: Mapping[str, str] = field(default_factory=lambda: REFUSED)
    """Keys that are refused unless they are known, with the hint for each."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has the keys of a spelling. A key whose value is null counts as absent."""
        return any(has(row, *keys) for keys in (*self.spellings, *self.rare_spellings))


def beside(spellings: Iterable[tuple[str, ...]], *keys: str) -> tuple[tuple[str, ...], ...]:
    """Each spelling with each of the keys."""
    return tuple((*spelling, key) for key in keys for spelling in spellings)
