"""What is left to do for a job that has ended: nothing but its children."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tunesmith_api.base import parse_duration
from tunesmith_operator.plan.jobs import accounting
from tunesmith_operator.plan.jobs.attempts import is_over, is_suspended, may_work
from tunesmith_operator.plan.names import is_deleting, key_of, metadata, name_of
from tunesmith_operator.plan.status.conditions import Wanted, set_conditions
from tunesmith_operator.plan.status.outlook import earliest, until
from tunesmith_operator.plan.status.phases import Phase
from tunesmith_operator.plan.times import parse_time
from tunesmith_operator.plan.types import Key, Observed, Plan, Raw

LOOK_AGAIN = 15.0
"""Seconds: pods that stop are heard of, but not those of a node that does not answer."""


def after_the_end(
    resource: Raw,
    observed: Observed,
    roles: Sequence[accounting.Account],
    now: datetime,
    unfinished: Sequence[Key] = (),
) -> Plan:
    """Nothing changes but the children: what is still at work goes, `unfinished` with it, and after
    spec.ttlAfterFinished the rest; and what the last pods cost is known when they have stopped."""
    status = resource["status"]
    ttl = (resource.get("spec") or {}).get("ttlAfterFinished")
    ended = parse_time(status.get("completionTime")) or now
    expiry = ended + timedelta(seconds=parse_duration(ttl)) if ttl else None
    expired = expiry is not None and now >= expiry
    at_work = status.get("phase") == Phase.FAILED
    jobs = sorted(observed.jobs, key=name_of)
    children = [*(key_of(job, "Job") for job in jobs), *(key_of(one, "Service") for one in observed.services)]
    gone = tuple(
        key_of(job, "Job")
        for job in jobs
        if not is_deleting(job)
        and (expired or (not is_over(job) and (at_work or is_suspended(job) or key_of(job, "Job") in unfinished)))
    )
    gone += tuple(key_of(one, "Service") for one in observed.services if expired and not is_deleting(one))
    stopping = at_work and any(may_work(pod, now) for pod in observed.pods)
    new = {
        **status,
        **_accounts(status, roles),
        "children": [{"kind": key.kind, "name": key.name} for key in children],
        "observedGeneration": int(metadata(resource).get("generation") or 0),
        "conditions": _final_conditions(resource, tidied=not gone and not stopping, now=now),
    }
    wait = earliest(None if expired or not children else until(expiry, now), LOOK_AGAIN if stopping else None)
    return Plan(delete=gone, status=None if new == status else new, requeue_after=wait)


def _accounts(status: Raw, roles: Sequence[accounting.Account]) -> Raw:
    """What attempts cost, if that was not known for good: where a pod still stops, not before it has stopped."""
    if all("endTime" in row for row in status.get("attempts") or ()):
        return {}
    fields = accounting.accounts(status, roles)
    known = {name: value for name, value in fields.items() if value is not None}
    return known if accounting.is_news(status, known) else {}


def _final_conditions(resource: Raw, tidied: bool, now: datetime) -> list[Raw]:
    """The conditions as they were, of the present generation; Reconciling ends when nothing is left at work."""
    old = resource["status"].get("conditions") or []
    wanted = [
        Wanted(
            one["type"],
            one["status"] == "True" and not (tidied and one["type"] == "Reconciling"),
            one["reason"],
            one["message"],
        )
        for one in old
    ]
    return set_conditions(old, wanted, int(metadata(resource).get("generation") or 0), now)
