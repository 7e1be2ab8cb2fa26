"""Limits how often progress that pods push changes status: once every five seconds."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from tunesmith_operator.plan.jobs import accounting
from tunesmith_operator.plan.requeue import earliest
from tunesmith_operator.plan.times import parse_time
from tunesmith_operator.plan.types import Plan, Raw

INTERVAL = timedelta(seconds=5)
PROGRESS_FIELDS = frozenset({"progress", "rows", "lastCheckpoint", "resumedFromStep"})
"""Fields that pushed progress may change."""


def throttled(old: Raw, plan: Plan, now: datetime) -> Plan:
    """`plan` without its status if that only brings larger sums, or progress in the same stage too soon after the last."""
    new = plan.status
    if new is None or accounting.closes_a_row(old, new):
        return plan
    changed = {name for name in {*old, *new} - accounting.FIELDS if old.get(name) != new.get(name)}
    if not changed:
        return replace(plan, status=None)
    if plan.create or plan.delete or changed - PROGRESS_FIELDS:
        return plan
    before, after = old.get("progress") or {}, new.get("progress") or {}
    shown = parse_time(before.get("updated"))
    if shown is None or now >= shown + INTERVAL or before.get("stage") != after.get("stage"):
        return plan
    wait = (shown + INTERVAL - now).total_seconds()
    return replace(plan, status=None, requeue_after=earliest(wait, plan.requeue_after))
