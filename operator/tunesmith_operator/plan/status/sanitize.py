"""Making a status valid: one field that the schema rejects, for example from a report, would prevent the whole write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from typing import Any

from pydantic import ValidationError

from tunesmith_api.evaljob import EvalJobStatus
from tunesmith_api.finetunejob_status import FineTuneJobStatus
from tunesmith_api.inferenceservice import InferenceServiceStatus
from tunesmith_api.redaction import redact
from tunesmith_api.status import Status
from tunesmith_operator.plan.times import format_time, parse_time
from tunesmith_operator.plan.types import Raw

TYPES: dict[str, type[Status]] = {
    "FineTuneJob": FineTuneJobStatus,
    "EvalJob": EvalJobStatus,
    "InferenceService": InferenceServiceStatus,
}
TIMES = frozenset({"time", "updated", "startTime", "endTime", "completionTime"})
"""Fields with format date-time."""
YEARS = range(1970, 9999)
KEYS: dict[str, tuple[str, ...]] = {
    "dropped": ("reason",),
    "artifacts": ("name",),
    "results": ("benchmark", "metric"),
    "rewards": ("name",),
}
"""Lists from reports that the API server merges by keys: it rejects duplicates."""
LARGEST = 2**63 - 1
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move a terminal's cursor, reverse the direction of text, or are invalid in UTF-8."""


def sanitize(kind: str, status: Raw) -> Raw:
    """Return `status` without what the schema of `kind` rejects. An object that lacks a required field is removed as a whole."""
    fit: Raw = _clean(status) or {}
    while path := _first_misfit(TYPES[kind], fit):
        fit = _without(fit, path) or {}
    return fit


def _first_misfit(type_: type[Status], status: Raw) -> Sequence[int | str]:
    try:
        type_.model_validate(status)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)[0]["loc"]
    return ()


def _without(thing: Any, path: Sequence[int | str]) -> Any:
    """Return `thing` without the value at `path`; None if it has none."""
    head, rest = path[0], path[1:]
    if isinstance(thing, list) and isinstance(head, int):
        below = _without(thing[head], rest) if rest else None
        return [*thing[:head], *([] if below is None else [below]), *thing[head + 1 :]]
    if isinstance(thing, dict) and head in thing:
        below = _without(thing[head], rest) if rest else None
        others = {name: value for name, value in thing.items() if name != head}
        return others if below is None else {**thing, head: below}
    return None


def _clean(thing: Any, field: str = "") -> Any:
    """Return `thing` without what its type admits and the API server or a reader does not.

    Removed are invalid times, numbers out of range, duplicate keys, unprintable characters and secrets.
    """
    if isinstance(thing, dict):
        below = {name: _clean(value, name) for name, value in thing.items()}
        return {name: value for name, value in below.items() if value is not None}
    if isinstance(thing, list):
        items = [item for item in (_clean(element) for element in thing) if item is not None]
        return _distinct(items, KEYS[field]) if field in KEYS else items
    if isinstance(thing, float):
        return thing if isfinite(thing) else None
    if isinstance(thing, int):
        return thing if abs(thing) <= LARGEST else None
    if field in TIMES:
        return _time(thing)
    return _readable(thing) if isinstance(thing, str) else thing


@lru_cache(maxsize=4096)  # most texts of a status are in the next one, and in those of other resources
def _readable(text: str) -> str:
    """Return `text` without unprintable characters and secrets."""
    return redact(UNPRINTABLE.sub(" ", text))


def _time(text: object) -> str | None:
    moment = parse_time(text)
    return format_time(moment) if moment and moment.year in YEARS else None


def _distinct(items: list[Any], keys: tuple[str, ...]) -> list[Any]:
    first: dict[tuple[Any, ...], Any] = {}
    for item in items:
        first.setdefault(tuple(item.get(key) for key in keys), item)
    return list(first.values())
