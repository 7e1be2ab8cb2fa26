"""Progress that pods push, as status shows it."""

from __future__ import annotations

from tunesmith_operator.plan.times import format_time, parse_time
from tunesmith_operator.plan.types import Progress, Raw

STAGE_LIMIT = 253


def progress_fields(latest: Progress, stage: str, *optional: str) -> Raw:
    """status.progress from a pushed report; `optional` names further fields that a report may have."""
    report, data = latest.report, latest.report.to_dict()
    return {
        **{name: _rounded(data[name]) for name in optional if name in data},
        "stage": stage[:STAGE_LIMIT],
        "step": report.step,
        "totalSteps": report.total_steps,
        "percent": percent(report.step, report.total_steps),
        "updated": format_time(latest.time),
    }


def percent(step: int, total: int) -> int:
    """The share of the steps that are done in whole percent; 0 if the number of steps is unknown."""
    return min(100 * step // total, 100) if total > 0 else 0


def is_newer(latest: Progress | None, shown: Raw | None) -> bool:
    """Whether `latest` is later than the progress in status. After a restart of the operator there is none."""
    if latest is None:
        return False
    updated = parse_time((shown or {}).get("updated"))
    return updated is None or format_time(latest.time) > format_time(updated)


def _rounded(value: object) -> object:
    """Floats of four digits fit a printer column."""
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
