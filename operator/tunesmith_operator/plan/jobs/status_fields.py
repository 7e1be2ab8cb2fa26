"""The fields of status that both kinds of job have: attempts and their cost, times, and whether the job has succeeded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tunesmith_operator.plan.jobs.accounting import STOPPED, SUSPENDED, Account, cost_fields
from tunesmith_operator.plan.jobs.attempts import Attempts
from tunesmith_operator.plan.jobs.kind import JobContext, Spec
from tunesmith_operator.plan.jobs.schedule import first_start
from tunesmith_operator.plan.names import ATTEMPT_ANNOTATION, ROLE_LABEL, annotation, label
from tunesmith_operator.plan.phases import Phase
from tunesmith_operator.plan.status.conditions import WantedCondition
from tunesmith_operator.plan.status.outlook import Outlook
from tunesmith_operator.plan.types import Raw


def with_status_fields(context: JobContext[Spec], outlook: Outlook) -> Outlook:
    """`outlook` with the fields of its kind and of both kinds, and the condition Succeeded."""
    fields = {
        **_reported(context, outlook),
        "attempt": _newest(context, outlook) or None,
        "failures": max((attempts.failures for attempts in context.work), default=0) or None,
        "startTime": first_start(context),
        **cost_fields(context.status, accounts(context, lambda attempts: _stopped(attempts, outlook))),
        **outlook.fields,
    }
    unknown = (WantedCondition("Succeeded", None, outlook.reason, outlook.message),)
    return replace(outlook, fields=fields, conditions=outlook.conditions or unknown)


def accounts(context: JobContext[Spec], stopped: Callable[[Attempts], str | None]) -> list[Account]:
    """The account of each role's work; `stopped` names the outcome of attempts that the operator ends."""
    devices = context.spec.resources.devices
    return [
        Account(attempts, devices if attempts.role.holds_devices else 0, stopped(attempts), context.now)
        for attempts in context.work
    ]


def _reported(context: JobContext[Spec], outlook: Outlook) -> Raw:
    """The kind's own fields. resumedFromStep is removed when a new attempt begins, until its pod reports one."""
    reported = context.kind.report(context)
    if _newest(context, outlook) == int(context.status.get("attempt") or 0):
        return reported
    removed: Raw = {"resumedFromStep": None}
    return {**reported, **removed} if _created(context, outlook) else {**removed, **reported}


def _newest(context: JobContext[Spec], outlook: Outlook) -> int:
    return max([0, *_created(context, outlook), *(attempts.number for attempts in context.work)])


def _created(context: JobContext[Spec], outlook: Outlook) -> list[int]:
    """Numbers of the attempts of work that the plan creates."""
    labels = {attempts.role.label for attempts in context.work}
    created = (job for job in outlook.create if label(job, ROLE_LABEL) in labels)
    return [int(annotation(job, ATTEMPT_ANNOTATION) or 0) for job in created]


def _stopped(attempts: Attempts, outlook: Outlook) -> str | None:
    """The outcome of an attempt that this plan ends."""
    if outlook.phase is Phase.SUSPENDED:
        return SUSPENDED
    return STOPPED if set(attempts.unfinished) & set(outlook.delete) else None
