"""Splits of data sets: a name such as `train`, with an optional part of its rows such as `train[:90%]` or `train[100:200]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunesmith_api.grammar import Grammar

_BOUND = "-?[0-9]{1,12}%?"
SPLIT = Grammar(
    pattern=rf"^\w[\w.-]*(\[({_BOUND})?:({_BOUND})?\])?$",
    problem="is not a split",
    advice="write a name such as train, or a part of it such as train[:90%] or train[1000:2000]",
    repairs=((" ", ""),),
)


@dataclass(frozen=True)
class Bound:
    """An end of a part: a number of rows, or a share of them in percent. Negative: counted from the end."""

    number: int
    is_percent: bool

    def row(self, rows: int) -> int:
        """The index among `rows` rows; shares are rounded to the nearest row, as `datasets` does."""
        index = round(self.number * rows / 100) if self.is_percent else self.number
        return min(max(index + rows if self.number < 0 else index, 0), rows)


@dataclass(frozen=True)
class Split:
    """A split, or a part of one."""

    name: str
    start: Bound | None = None
    stop: Bound | None = None

    @property
    def needs_count(self) -> bool:
        """Whether the part depends on the number of rows in the split."""
        return any(bound and (bound.is_percent or bound.number < 0) for bound in (self.start, self.stop))

    def rows(self, count: int | None = None) -> tuple[int, int | None]:
        """First row from 0, and the row after the last one (None: the end). `count`: the rows in the split, where `needs_count`."""
        if count is None:
            return self.start.number if self.start else 0, self.stop.number if self.stop else None
        return self.start.row(count) if self.start else 0, self.stop.row(count) if self.stop else None


def parse_split(text: str) -> Split:
    """Parse a text that SPLIT accepts."""
    name, _, part = text.removesuffix("]").partition("[")
    start, _, stop = part.partition(":")
    return Split(name, _bound(start), _bound(stop))


def _bound(text: str) -> Bound | None:
    found = re.fullmatch("(-?[0-9]+)(%?)", text)
    return Bound(int(found[1]), bool(found[2])) if found else None
