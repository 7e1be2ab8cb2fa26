"""Counts of rows: kept, dropped by reason, and the keys that were not read; in bounded memory."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tunesmith_api.finetunejob_status import ConvertedImages, IgnoredKey
from tunesmith_runtime.data.drop_reasons import DropReason

log = logging.getLogger(__name__)

MAX_KEYS = 8
"""Ignored keys that status names; more are counted together. They must fit into a termination message."""
OTHER_KEYS = "(others)"
MAX_DISTINCT = 1000
"""Number of distinct ignored keys that are counted by name; all others are counted together."""


@dataclass
class Reading:
    """How far the data sets were read."""

    dataset: int = 0
    """Index of the data set."""
    rows: int = 0
    """Rows of it that were read."""
    bad: int = 0
    first_bad: list[str] = field(default_factory=list)
    """Messages of the first bad ones."""
    format: str | None = None
    """The format that the first row decided."""


@dataclass
class RowCounts:
    """Counts over the rows of several data sets."""

    kept: int = 0
    ends: list[int] = field(default_factory=list)
    """For each data set the number of rows kept up to its end."""
    dropped: Counter[DropReason] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    """Rows of `kept` that are trained on in part or in pieces."""
    too_long: tuple[int, int] | None = None
    """Tokens of the shortest and of the longest row that did not fit."""
    largest_budget: int | None = None
    """The largest training.maxPixels with which all rows fit that did not, and that fit with any."""
    converted: Counter[str] = field(default_factory=Counter)
    """Images of the rows that are kept, by what was converted."""
    reading: Reading = field(default_factory=Reading)

    def drop(self, reason: DropReason, tokens: int | None = None, budget: int | None = None) -> None:
        """Count a dropped row. Where it did not fit, `tokens` is its length, and `budget` the largest maxPixels with which it would."""
        self.dropped[reason] += 1
        if tokens is not None:
            shortest, longest = self.too_long or (tokens, tokens)
            self.too_long = min(shortest, tokens), max(longest, tokens)
        if budget is not None:
            self.largest_budget = min(budget, self.largest_budget or budget)


def count_ignored(counts: Counter[str], keys: Iterable[str]) -> None:
    """Count the keys of a row that are not read. The number of names is bounded, as keys may be data."""
    for key in {f"{key:.60}" for key in keys}:
        counts[key if key in counts or len(counts) < MAX_DISTINCT else OTHER_KEYS] += 1


def ignored_keys(counts: Counter[str]) -> list[IgnoredKey]:
    """The keys that are not read, the most frequent first; those beyond MAX_KEYS share an entry."""
    ordered = _ordered(counts)
    if len(ordered) > MAX_KEYS:
        named = [entry for entry in ordered if entry[0] != OTHER_KEYS][: MAX_KEYS - 1]
        ordered = [*named, (OTHER_KEYS, counts.total() - sum(count for _, count in named))]
    return [IgnoredKey(key=key, count=count) for key, count in ordered]


def converted_images(counts: Counter[str]) -> list[ConvertedImages]:
    """The images that were converted, by what was done."""
    return [ConvertedImages(conversion=name, count=count) for name, count in sorted(counts.items())]


def warn_of_ignored(uri: str, counts: Counter[str]) -> None:
    """Log the keys that are not read."""
    if counts:
        shown = ", ".join(f"{key} ({count} rows)" for key, count in _ordered(counts)[:100])
        log.warning("%s: keys that are not read: %s", uri, shown)


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
