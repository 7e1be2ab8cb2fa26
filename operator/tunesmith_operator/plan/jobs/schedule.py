"""When a job is reconciled again without a watch event, its deadlines, and when its children's Events are read."""

from __future__ import annotations

from datetime import datetime, timedelta

from tunesmith_api.base import parse_duration
from tunesmith_operator.plan.failures.pod_start import is_slow_to_start, slow_after
from tunesmith_operator.plan.failures.rejection import is_short_of_pods
from tunesmith_operator.plan.jobs.attempts import Attempts, next_start
from tunesmith_operator.plan.jobs.kind import JobContext, Spec
from tunesmith_operator.plan.jobs.queueing import QUEUE_LABEL, has_reported
from tunesmith_operator.plan.jobs.read import admitted_at, created_at, is_over, is_suspended, suspended_at
from tunesmith_operator.plan.jobs.state import State
from tunesmith_operator.plan.names import is_deleting, key_of, label, metadata, name_of
from tunesmith_operator.plan.phases import is_final
from tunesmith_operator.plan.pods.members import has_started, pod_count
from tunesmith_operator.plan.pods.read import condition
from tunesmith_operator.plan.requeue import (
    CREATED_TIMEOUT,
    EVENT_LATENCY,
    POLL_INTERVAL,
    QUEUE_LATENCY,
    earliest,
    seconds_until,
)
from tunesmith_operator.plan.times import parse_time
from tunesmith_operator.plan.types import Key, Observed, Raw

POLLS_PER_AGE = 4
"""The longer a Job waits, the less often it is polled: each delay is at least a quarter of the time that it has waited."""


def requeue_after(context: JobContext[Spec]) -> float | None:
    """Seconds after which time alone may change the plan; None if only a watch event can."""
    delays = [_delay(context, attempts) for attempts in context.current]
    return earliest(seconds_until(deadline(context), context.now), *delays)


def first_start(context: JobContext[Spec]) -> str | None:
    """status.startTime: when the first container of the work ran; for adopted work, when the pod that found it started.

    A pod that is only assigned to a node is not worth a status write.
    """
    pods = [pod for attempts in context.work for pod in attempts.members if has_started(pod)]
    if not pods and context.has_succeeded():
        pods = [pod for attempts in context.current for pod in attempts.members]
    starts = [str(start) for pod in pods if (start := (pod.get("status") or {}).get("startTime"))]
    return context.status.get("startTime") or min(starts, default=None)


def deadline(context: JobContext[Spec]) -> datetime | None:
    """When spec.deadline ends, counted from the first start."""
    start = parse_time(first_start(context))
    return start + timedelta(seconds=parse_duration(context.spec.deadline)) if start and context.spec.deadline else None


def pending_deadline(context: JobContext[Spec], attempts: Attempts) -> datetime | None:
    """When spec.pendingDeadline ends for an attempt that is starting, counted from when its Job may have pods."""
    if not context.spec.pending_deadline or attempts.state is not State.STARTING or not attempts.job:
        return None
    since = _startable_since(attempts.job)
    return since + timedelta(seconds=parse_duration(context.spec.pending_deadline)) if since else None


def wants_job_events(resource: Raw, observed: Observed, now: datetime) -> frozenset[Key]:
    """Jobs without all their pods and pods that start slowly: only Events explain them."""
    if is_deleting(resource) or is_final(resource):
        return frozenset()
    owned = [owner.get("name") for pod in observed.pods for owner in metadata(pod).get("ownerReferences") or []]
    jobs = (
        key_of(job, "Job")
        for job in observed.jobs
        if not (is_over(job) or is_suspended(job))
        and owned.count(name_of(job)) < pod_count(job)
        and is_short_of_pods(job)
    )
    pods = (key_of(pod, "Pod") for pod in observed.pods if is_slow_to_start(pod, now))
    return frozenset([*jobs, *pods])


def _delay(context: JobContext[Spec], attempts: Attempts) -> float | None:
    """Seconds until time alone may change the outlook of one role."""
    now, job = context.now, attempts.job
    delays = [seconds_until(pending_deadline(context, attempts), now)]
    if attempts.state is State.STARTING and job:
        delays.append(_until_events_explain(attempts, job, now))
    if attempts.is_active and job and (is_over(job) or is_deleting(attempts.pod or {})):
        delays.append(POLL_INTERVAL)
    if attempts.state is State.QUEUED and job and context.config.kueue.enabled:
        latency = POLL_INTERVAL if has_reported(job, context.observed.workloads) else QUEUE_LATENCY
        delays.append(max(latency, _age(suspended_at(job), now) / POLLS_PER_AGE))
    if attempts.state in (State.NONE, State.FAILED):
        backoff = seconds_until(next_start(attempts, now), now) or CREATED_TIMEOUT
        delays.append(POLL_INTERVAL if attempts.stopping else backoff)
    return earliest(*delays)


def _until_events_explain(attempts: Attempts, job: Raw, now: datetime) -> float | None:
    """Seconds until Events may explain what Job and pod don't; None if a change of the Job or pod will."""
    slow = min((moment for pod in attempts.members if (moment := slow_after(pod))), default=None)
    if slow and now <= slow:
        return (slow - now).total_seconds() + EVENT_LATENCY
    if not slow and not (len(attempts.members) < pod_count(job) and is_short_of_pods(job)):
        return None
    return max(POLL_INTERVAL if attempts.trouble else EVENT_LATENCY, _age(_startable_since(job), now) / POLLS_PER_AGE)


def _startable_since(job: Raw) -> datetime | None:
    """Since when a Job may have pods; None while it is suspended, or resumed and not yet seen by its controller."""
    was_suspended = is_suspended(job) or condition(job, "Suspended") or label(job, QUEUE_LABEL)
    return admitted_at(job) or (None if was_suspended else created_at(job))


def _age(since: datetime | None, now: datetime) -> float:
    return (now - since).total_seconds() if since else 0.0
