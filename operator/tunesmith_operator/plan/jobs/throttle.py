"""Progress that pods push: into status, but not more often than every five seconds."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from tunesmith_operator.plan.jobs import accounting
from tunesmith_operator.plan.status.outlook import earliest
from tunesmith_operator.plan.times import format_time, parse_time
from tunesmith_operator.plan.types import Plan, Progress, Raw

INTERVAL = timedelta(seconds=5)
FIELDS = frozenset({"progress", "rows", "lastCheckpoint", "resumedFromStep"})
"""What a push may change."""


def percent(step: int, total: int) -> int:
    """The share of the steps that are done, in whole percent, 0 where the number of steps is not known."""
    return min(100 * step // total, 100) if total > 0 else 0


def rounded(progress: Raw) -> Raw:
    """`progress` with floats of four digits, which is what a printer column has room for."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in progress.items()}


def is_news(old: Raw | None, latest: Progress | None) -> bool:
    """Whether `latest` is later than what status shows: a restarted operator has heard nothing yet."""
    if latest is None:
        return False
    shown = parse_time((old or {}).get("updated"))
    return shown is None or format_time(latest.time) > format_time(shown)


def throttled(old: Raw, plan: Plan, now: datetime) -> Plan:
    """`plan`, its status held back where nothing has changed but sums that go on growing, or progress within a stage, a
    moment after the last."""
    new = plan.status
    if new is None or accounting.is_news(old, new):
        return plan
    changed = {name for name in {*old, *new} - accounting.FIELDS if old.get(name) != new.get(name)}
    if not changed:
        return replace(plan, status=None)
    if plan.create or plan.delete or changed - FIELDS:
        return plan
    before, after = old.get("progress") or {}, new.get("progress") or {}
    shown = parse_time(before.get("updated"))
    if shown is None or now >= shown + INTERVAL or before.get("stage") != after.get("stage"):
        return plan
    wait = (shown + INTERVAL - now).total_seconds()
    return replace(plan, status=None, requeue_after=earliest(wait, plan.requeue_after))
