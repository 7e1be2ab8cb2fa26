"""The plan of a FineTuneJob or EvalJob: which attempts to create, keep and delete, from the first pod to the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.drift import matches
from tunesmith_operator.plan.failures.rejection import rejection_failure
from tunesmith_operator.plan.jobs import outlooks, preparation
from tunesmith_operator.plan.jobs.accounting import STOPPED, recorded_failures, recorded_number
from tunesmith_operator.plan.jobs.after_completion import after_completion
from tunesmith_operator.plan.jobs.attempts import Attempts, Role, is_given_up, next_start, read_attempts
from tunesmith_operator.plan.jobs.kind import JobContext, JobKind, Models, NewAttempt, Spec
from tunesmith_operator.plan.jobs.manifest import job_manifest
from tunesmith_operator.plan.jobs.schedule import deadline, pending_deadline, wants_job_events
from tunesmith_operator.plan.jobs.status_fields import accounts, with_status_fields
from tunesmith_operator.plan.jobs.throttle import throttled
from tunesmith_operator.plan.names import is_deleting, job_name, job_stem, key_of, labels, name_of, namespace_of
from tunesmith_operator.plan.phases import Phase, is_final
from tunesmith_operator.plan.requeue import REFUSED_INTERVAL
from tunesmith_operator.plan.spec.references import Refused, Waiting
from tunesmith_operator.plan.spec.validate import as_refused, parse_spec, spec_refusals
from tunesmith_operator.plan.status.outlook import Outlook, name_conflict, plan_from_outlook
from tunesmith_operator.plan.types import Key, KindPlan, Observed, Plan, Raw, Reference, TokenFor


def kind_plan(
    kind: JobKind[Spec],
    references: Callable[[Raw], frozenset[Reference]],
    gets: Callable[[Raw], frozenset[Key]] = lambda resource: frozenset(),
) -> KindPlan:
    """The kind of job as the controller needs it."""
    return KindPlan(
        kind=kind.name,
        lists=("Job", "Pod"),
        gets=gets,
        references=references,
        wants_events=wants_job_events,
        plan=partial(plan_job, kind),
    )


def plan_job(
    kind: JobKind[Spec], resource: Raw, observed: Observed, now: datetime, config: OperatorConfig, token: TokenFor
) -> Plan:
    """The plan of a FineTuneJob or EvalJob."""
    if is_deleting(resource):
        return Plan()
    spec = parse_spec(kind.spec_type, resource)
    if isinstance(spec, Refused):
        if is_final(resource):
            return after_completion(resource, observed, (), now)
        return plan_from_outlook(resource, observed, outlooks.refused(spec, kind.name), now)
    current, others = _read_roles(kind, spec, resource, observed, now)
    context = JobContext(kind, resource, spec, current, others, observed, now, config, token)
    if is_final(resource):
        final_accounts = accounts(context, lambda attempts: STOPPED)
        return after_completion(resource, observed, final_accounts, now, context.unfinished)
    decided = next(outlook for decide in DECISIONS if (outlook := decide(context)))
    outlook = with_status_fields(context, _with_cleanup(context, _with_services(context, decided)))
    return throttled(context.status, plan_from_outlook(resource, observed, outlook, now), now)


def _read_roles(
    kind: JobKind[Spec], spec: Spec, resource: Raw, observed: Observed, now: datetime
) -> tuple[tuple[Attempts, ...], tuple[Attempts, ...]]:
    """For each role the attempts that determine its outlook; and the others."""
    current: list[Attempts] = []
    others: list[Attempts] = []
    for role in kind.roles(spec):
        work = _read_work(role, resource, observed, now)
        if not preparation.needs_preparation(role, spec.resources):
            current.append(work)
            continue
        preparing = read_attempts(role, role.preparation_label, observed, now)
        following = Key("Job", job_name(resource, preparing.label, preparing.number + 1))
        is_refused = not preparing.is_active and following in observed.refused
        chosen = preparation.choose(work, preparing, is_refused)
        current.append(chosen)
        others.append(work if chosen is preparing else preparing)
    return tuple(current), tuple(others)


def _read_work(role: Role, resource: Raw, observed: Observed, now: datetime) -> Attempts:
    status = resource.get("status") or {}
    number = recorded_number(status, role, job_stem(resource, role.label))
    return read_attempts(role, role.label, observed, now, number, recorded_failures(status, role))


def _complete(context: JobContext[Spec]) -> Outlook | None:
    return outlooks.final(context, context.kind.complete(context)) if context.has_succeeded() else None


def _give_up(context: JobContext[Spec]) -> Outlook | None:
    for attempts in context.current:
        if is_given_up(attempts, context.spec.retries):
            return outlooks.given_up(context, attempts)
    return None


def _refuse(context: JobContext[Spec]) -> Outlook | None:
    """Refuse the spec, unless an attempt is active: the spec was acceptable when it started."""
    if any(attempts.is_active for attempts in context.current):
        return None
    kind, spec, config = context.kind, context.spec, context.config
    refusals = [
        *spec_refusals(kind.name, spec, config, namespace_of(context.resource)),
        *kind.find_refusals(spec, config),
    ]
    return outlooks.refused(as_refused(refusals), kind.name) if refusals else None


def _suspend(context: JobContext[Spec]) -> Outlook | None:
    return outlooks.suspended(context) if context.spec.suspend else None


def _enforce_deadlines(context: JobContext[Spec]) -> Outlook | None:
    end = deadline(context)
    if end and context.now >= end:
        return outlooks.deadline_exceeded(context)
    for attempts in context.current:
        end = pending_deadline(context, attempts)
        if end and context.now >= end:
            return outlooks.pending_deadline_exceeded(context, attempts)
    return None


def _find_name_conflict(context: JobContext[Spec]) -> Outlook | None:
    """Wait while objects that are not ours have the names of the next attempt's children."""
    services = [key_of(service, "Service") for service in context.kind.services(context.resource, context.spec)]
    for attempts in context.current:
        job = Key("Job", job_name(context.resource, attempts.label, attempts.number + 1))
        taken = [key for key in (job, *services) if key in context.observed.foreign]
        if attempts.is_idle and taken:
            return name_conflict(context.resource, taken, context.observed.former)
    return None


def _start_attempts(context: JobContext[Spec]) -> Outlook | None:
    """Create the next attempt of each role that has none and whose backoff is over."""
    idle = [attempts for attempts in context.current if attempts.is_idle]
    ready = [
        attempts for attempts in idle if not attempts.stopping and next_start(attempts, context.now) <= context.now
    ]
    unfinished = tuple(key for attempts in idle for key in attempts.unfinished)
    if not ready:
        return replace(outlooks.under_way(context), delete=unfinished) if unfinished else None
    models = context.kind.resolve_models(context.spec, context.observed.references)
    if isinstance(models, Refused):
        return outlooks.refused(models, context.kind.name)
    if isinstance(models, Waiting):
        return replace(_wait(context, models), delete=unfinished)
    return _create(context, ready, [_manifest(context, attempts, models) for attempts in ready], unfinished)


def _wait(context: JobContext[Spec], cause: Waiting) -> Outlook:
    """Wait for a referenced resource, unless that waits for this resource."""
    if cycle := context.observed.cycle:
        return outlooks.in_cycle(cycle, context.kind.name)
    return replace(outlooks.waiting(cause), trouble=outlooks.newest_failure(context))


def _create(
    context: JobContext[Spec], ready: Sequence[Attempts], jobs: Sequence[Raw], unfinished: tuple[Key, ...]
) -> Outlook:
    """Create `jobs`; Pending with the cause if the API server has rejected one of them before."""
    rejected = context.observed.refused
    accepted = tuple(job for job in jobs if key_of(job, "Job") not in rejected)
    if len(accepted) < len(jobs):
        message = next(rejected[key] for job in jobs if (key := key_of(job, "Job")) in rejected)
        return replace(_pending_rejected(context, message), create=accepted)
    outdated = (key for attempts in ready for key in attempts.outdated)
    deleted = tuple(dict.fromkeys((*unfinished, *outdated)))
    return replace(outlooks.under_way(context, ready), create=accepted, delete=deleted)


def _pending_rejected(context: JobContext[Spec], message: str) -> Outlook:
    """Pending because the API server has rejected a child with `message`."""
    trouble = rejection_failure(message, namespace_of(context.resource), context.kind.name)
    return replace(outlooks.pending(trouble), requeue_after=REFUSED_INTERVAL)


def _manifest(context: JobContext[Spec], attempts: Attempts, models: Models) -> Raw:
    """The Job of the next attempt. Pods that request no devices are not queued."""
    role, number = attempts.role, attempts.number + 1
    attempt = NewAttempt(context.resource, context.spec, role, number, models[role], context.config)
    pod, queue = context.kind.plan_pod(attempt), context.spec.queue_name if role.holds_devices else None
    if attempts.is_preparation:
        pod, queue = preparation.preparation_pod(pod, labels(context.resource, attempts.label)), None
    return job_manifest(context.resource, attempts.label, pod, attempts.failures, context.token, queue)


def _with_services(context: JobContext[Spec], outlook: Outlook) -> Outlook:
    """`outlook` that also applies the Services of active work that are missing or have been changed."""
    is_active = bool(outlook.create) or any(attempts.is_active for attempts in context.work)
    if not context.work or not is_active:
        return outlook
    wanted = {
        key_of(manifest, "Service"): manifest for manifest in context.kind.services(context.resource, context.spec)
    }
    rejected = [context.observed.refused[key] for key in wanted if key in context.observed.refused]
    if rejected and outlook.phase is Phase.PENDING:
        outlook = replace(_pending_rejected(context, rejected[0]), create=outlook.create, delete=outlook.delete)
    existing = {name_of(service): service for service in context.observed.services}
    unwritable = {*context.observed.refused, *context.observed.foreign}
    drifted = (
        manifest
        for key, manifest in wanted.items()
        if key not in unwritable and not matches(existing.get(key.name), manifest)
    )
    return replace(outlook, apply=tuple(drifted))


def _with_cleanup(context: JobContext[Spec], outlook: Outlook) -> Outlook:
    """`outlook` that also deletes superseded Jobs, which an interrupted plan may have left, and Jobs without a purpose."""
    superseded = (key for attempts in context.every for key in attempts.superseded)
    unneeded = preparation.unneeded(context.current, context.others)
    return replace(outlook, delete=tuple(dict.fromkeys((*outlook.delete, *superseded, *unneeded))))


DECISIONS: tuple[Callable[[JobContext[Any]], Outlook | None], ...] = (
    _complete,
    _give_up,
    _refuse,
    _suspend,
    _enforce_deadlines,
    _find_name_conflict,
    _start_attempts,
    outlooks.under_way,
)
"""The first that returns an outlook decides."""
