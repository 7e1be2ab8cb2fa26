"""The plan of a job that has ended: delete what still runs and, after spec.ttlAfterFinished, its children."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tunesmith_api.base import parse_duration
from tunesmith_operator.plan.jobs.accounting import Account, closes_a_row, cost_fields
from tunesmith_operator.plan.jobs.read import is_over, is_suspended, may_run
from tunesmith_operator.plan.names import is_deleting, key_of, metadata, name_of
from tunesmith_operator.plan.phases import Phase
from tunesmith_operator.plan.requeue import POLL_INTERVAL, earliest, seconds_until
from tunesmith_operator.plan.status.conditions import WantedCondition, set_conditions
from tunesmith_operator.plan.times import parse_time
from tunesmith_operator.plan.types import Key, Observed, Plan, Raw


def after_completion(
    resource: Raw,
    observed: Observed,
    accounts: Sequence[Account],
    now: datetime,
    unfinished: Sequence[Key] = (),
) -> Plan:
    """Delete children that still run, including `unfinished`, and all children when they have expired.

    Status changes only by the children, by Reconciling, and by the cost of pods that stopped after the job ended.
    """
    status = resource["status"]
    expiry = _expiry(resource, now)
    is_expired = expiry is not None and now >= expiry
    has_failed = status.get("phase") == Phase.FAILED
    jobs, services = sorted(observed.jobs, key=name_of), observed.services
    children = [*(key_of(job, "Job") for job in jobs), *(key_of(service, "Service") for service in services)]
    deleted = tuple(
        key_of(job, "Job")
        for job in jobs
        if not is_deleting(job)
        and (is_expired or (not is_over(job) and (has_failed or is_suspended(job) or key_of(job, "Job") in unfinished)))
    )
    deleted += tuple(key_of(service, "Service") for service in services if is_expired and not is_deleting(service))
    is_stopping = has_failed and any(may_run(pod, now) for pod in observed.pods)
    new = {
        **status,
        **_closed_accounts(status, accounts),
        "children": [{"kind": key.kind, "name": key.name} for key in children],
        "observedGeneration": int(metadata(resource).get("generation") or 0),
        "conditions": _final_conditions(resource, reconciling=bool(deleted or is_stopping), now=now),
    }
    until_expiry = None if is_expired or not children else seconds_until(expiry, now)
    delay = earliest(until_expiry, POLL_INTERVAL if is_stopping else None)
    return Plan(delete=deleted, status=None if new == status else new, requeue_after=delay)


def _expiry(resource: Raw, now: datetime) -> datetime | None:
    """When spec.ttlAfterFinished has passed; None without a TTL."""
    ttl = (resource.get("spec") or {}).get("ttlAfterFinished")
    ended = parse_time(resource["status"].get("completionTime")) or now
    return ended + timedelta(seconds=parse_duration(ttl)) if ttl else None


def _closed_accounts(status: Raw, accounts: Sequence[Account]) -> Raw:
    """The cost of attempts whose rows were open, once the pods have stopped."""
    if all("endTime" in row for row in status.get("attempts") or ()):
        return {}
    known = {name: value for name, value in cost_fields(status, accounts).items() if value is not None}
    return known if closes_a_row(status, known) else {}


def _final_conditions(resource: Raw, reconciling: bool, now: datetime) -> list[Raw]:
    """The conditions as they were, for the current generation; Reconciling ends when nothing runs any more."""
    old = resource["status"].get("conditions") or []
    wanted = [
        WantedCondition(
            condition["type"],
            condition["status"] == "True" and (reconciling or condition["type"] != "Reconciling"),
            condition["reason"],
            condition["message"],
        )
        for condition in old
    ]
    return set_conditions(old, wanted, int(metadata(resource).get("generation") or 0), now)
