"""The outlook of each state of a job: phase, reason, message, and the time of the next reconcile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from tunesmith_api.base import parse_duration
from tunesmith_api.failures import FailureClass
from tunesmith_api.status import LastFailure
from tunesmith_operator.plan.failures.hints import with_hint, with_recreation
from tunesmith_operator.plan.failures.last_failure import failure
from tunesmith_operator.plan.failures.pod_start import start_progress
from tunesmith_operator.plan.jobs.attempts import Attempts, next_start
from tunesmith_operator.plan.jobs.kind import JobContext, Spec
from tunesmith_operator.plan.jobs.queueing import queue_reason
from tunesmith_operator.plan.jobs.read import may_run
from tunesmith_operator.plan.jobs.schedule import requeue_after
from tunesmith_operator.plan.jobs.state import State
from tunesmith_operator.plan.names import name_of
from tunesmith_operator.plan.phases import Phase, Reason
from tunesmith_operator.plan.requeue import POLL_INTERVAL, earliest
from tunesmith_operator.plan.spec.reference_cycles import BREAK_CYCLE, describe_cycle
from tunesmith_operator.plan.spec.references import Refused, Waiting
from tunesmith_operator.plan.status.conditions import WantedCondition
from tunesmith_operator.plan.status.outlook import Outlook
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Reference

RUNNING = (Phase.RUNNING, Reason.RUNNING, "running")
FETCHING = (Phase.PREPARING, Reason.FETCHING, "fetching the model and the data")
PREPARING = (
    Phase.PREPARING,
    Reason.PREPARING,
    "checking the store for finished work before requesting devices",
)
STARTING = (Phase.PENDING, Reason.WAITING_FOR_POD, "waiting for the pod to be scheduled and its image to be pulled")
QUEUED = (Phase.QUEUED, Reason.QUEUED, "")
ORDER = (RUNNING, FETCHING, PREPARING, STARTING, QUEUED)
"""The role that is furthest determines the phase of the job."""
BY_STATE = {
    State.RUNNING: RUNNING,
    State.FETCHING: FETCHING,
    State.STARTING: STARTING,
    State.QUEUED: QUEUED,
}


def under_way(context: JobContext[Spec], created: Sequence[Attempts] = ()) -> Outlook:
    """Attempts that are active, created by this plan, or waiting for their backoff."""
    shown = {_shown(context, attempts, attempts in created) for attempts in context.current}
    furthest = next((entry for entry in ORDER if entry in shown), None)
    phase, reason, message = furthest or (Phase.PENDING, *_between(context))
    trouble = next((attempts.trouble for attempts in context.current if attempts.trouble), None)
    if phase is Phase.QUEUED:
        return _queued(context)
    if phase is Phase.PENDING and trouble and STARTING in shown and not created:
        return replace(pending(trouble), requeue_after=requeue_after(context))
    if delay := _start_delay(context):
        message = f"{message}: {delay}"
    return Outlook(
        phase,
        reason,
        message,
        reconciling=True,
        waiting_for=message.removeprefix("waiting for ") if reason is Reason.WAITING_FOR_POD else None,
        trouble=trouble,
        requeue_after=requeue_after(context),
    )


def suspended(context: JobContext[Spec]) -> Outlook:
    """spec.suspend is true: unfinished Jobs are deleted, and their pods save a checkpoint."""
    unfinished = tuple(dict.fromkeys(key for attempts in context.every for key in attempts.unfinished))
    is_stopping = bool(unfinished or context.stopping)
    message = "spec.suspend is true: no pods; set it to false to resume from the last checkpoint"
    if is_stopping:
        message = "spec.suspend is true: pods save their state and stop"
    return Outlook(
        Phase.SUSPENDED,
        Reason.SUSPENDED,
        message,
        reconciling=is_stopping,
        delete=unfinished,
        trouble=newest_failure(context),
        requeue_after=POLL_INTERVAL if is_stopping else None,
    )


def waiting(cause: Waiting) -> Outlook:
    """A referenced resource is missing or not ready."""
    return Outlook(
        Phase.WAITING,
        cause.reason,
        f"waiting for {cause.text}",
        reconciling=not cause.is_stalled,
        stalled=cause.is_stalled,
        waiting_for=cause.text,
    )


def pending(trouble: LastFailure) -> Outlook:
    """Pods don't start, and will without a change of the spec once the trouble is over."""
    return Outlook(
        Phase.PENDING,
        str(trouble.class_),
        with_hint(trouble.message, trouble.hint),
        reconciling=True,
        waiting_for=trouble.message,
        trouble=trouble,
    )


def refused(cause: Refused, kind: str) -> Outlook:
    """The spec is refused. Not final: a change of the operator's configuration may allow it."""
    trouble = failure(FailureClass.BAD_SPEC, cause.text, cause.hint or None, kind)
    return failed(trouble, with_hint(trouble.message, trouble.hint if cause.hint else ""))


def in_cycle(cycle: tuple[Reference, ...], kind: str) -> Outlook:
    """The job waits for a resource that waits for the job. A change of any reference of the cycle ends the wait."""
    trouble = failure(FailureClass.BAD_SPEC, describe_cycle(cycle), kind=kind).model_copy(update={"hint": BREAK_CYCLE})
    return failed(trouble, with_hint(trouble.message, BREAK_CYCLE))


def failed(trouble: LastFailure, message: str) -> Outlook:
    """The job does not continue unless something is changed."""
    reason = str(trouble.class_)
    condition = WantedCondition("Succeeded", False, reason, message)
    return Outlook(Phase.FAILED, reason, message, stalled=True, trouble=trouble, conditions=(condition,))


def given_up(context: JobContext[Spec], attempts: Attempts) -> Outlook:
    """A failure that is permanent, or after which no retries are left."""
    assert attempts.trouble is not None
    retries = context.spec.retries
    spent = f"; no retries are left of {retries}" if attempts.failures > retries > 0 else ""
    trouble = attempts.trouble.model_copy(update={"hint": with_recreation(attempts.trouble.hint)})
    return final(context, failed(trouble, with_hint(f"{trouble.message}{spent}", trouble.hint)))


def deadline_exceeded(context: JobContext[Spec]) -> Outlook:
    """spec.deadline has passed."""
    message = f"not finished within spec.deadline ({context.spec.deadline}) of its first start"
    trouble = failure(FailureClass.DEADLINE_EXCEEDED, message, kind=context.kind.name)
    return final(context, failed(trouble, with_hint(trouble.message, trouble.hint)))


def pending_deadline_exceeded(context: JobContext[Spec], attempts: Attempts) -> Outlook:
    """spec.pendingDeadline has passed before the pod of an attempt started."""
    cause = attempts.trouble.message if attempts.trouble else "its pod did not start"
    message = f"pending for longer than spec.pendingDeadline ({context.spec.pending_deadline}): {cause}"
    hint = with_recreation(attempts.trouble.hint) if attempts.trouble else None
    trouble = failure(FailureClass.DEADLINE_EXCEEDED, message, hint, context.kind.name)
    return final(context, failed(trouble, with_hint(message, trouble.hint)))


def final(context: JobContext[Spec], outlook: Outlook) -> Outlook:
    """`outlook` as the end of the job: with completionTime, and Reconciling until no Job may run any more."""
    unfinished, ttl = context.unfinished, context.spec.ttl_after_finished
    return replace(
        outlook,
        reconciling=bool(unfinished),
        fields={**outlook.fields, "completionTime": format_time(context.now)},
        delete=unfinished,
        requeue_after=earliest(POLL_INTERVAL if unfinished else None, parse_duration(ttl) if ttl else None),
    )


def newest_failure(context: JobContext[Spec]) -> LastFailure | None:
    """Why the newest attempt of a role failed; None if none did."""
    return next((attempts.trouble for attempts in context.current if attempts.state is State.FAILED), None)


def _shown(context: JobContext[Spec], attempts: Attempts, is_created: bool) -> tuple[Phase, Reason, str] | None:
    """The entry of an attempt that is active or created by this plan."""
    if attempts.is_preparation and (is_created or attempts.is_active):
        is_held_up = not is_created and attempts.state is State.STARTING and attempts.trouble
        return STARTING if is_held_up else PREPARING
    if is_created:
        return QUEUED if context.spec.queue_name and attempts.role.holds_devices else STARTING
    return BY_STATE.get(attempts.state)


def _start_delay(context: JobContext[Spec]) -> str | None:
    """What the first pod that starts slowly is doing."""
    starting = [pod for attempts in context.current if attempts.state is State.STARTING for pod in attempts.members]
    return next((text for pod in starting if (text := start_progress(pod, context.observed.events))), None)


def _queued(context: JobContext[Spec]) -> Outlook:
    """Every active attempt waits in a queue."""
    jobs = [attempts.job for attempts in context.current if attempts.job and attempts.state is State.QUEUED]
    workloads, problem = context.observed.workloads, context.observed.workloads_problem
    causes = dict.fromkeys(queue_reason(job, workloads, problem) for job in jobs)
    cause = "; ".join(causes) or f"LocalQueue {context.spec.queue_name} to admit it"
    message = f"waiting for {cause}"
    stopping = [name_of(pod) for attempts in context.current for pod in attempts.pods if may_run(pod, context.now)]
    if stopping:
        message = f"stopped by its queue: pod {', '.join(stopping)} saves its state and stops; {message}"
    return Outlook(
        Phase.QUEUED,
        Reason.QUEUED,
        message,
        reconciling=True,
        trouble=newest_failure(context),
        waiting_for=cause,
        requeue_after=requeue_after(context),
    )


def _between(context: JobContext[Spec]) -> tuple[Reason, str]:
    """Why no attempt is active: pods of the last attempt are stopping, or the backoff is not over."""
    stopping = [name for attempts in context.current for name in attempts.stopping]
    if stopping:
        return Reason.STOPPING, f"waiting for pod {', '.join(stopping)} to save its state and stop"
    idle = next(attempts for attempts in context.current if attempts.is_idle)
    return Reason.BACK_OFF, _backoff(idle, context.now)


def _backoff(attempts: Attempts, now: datetime) -> str:
    start, trouble = format_time(next_start(attempts, now)), attempts.trouble
    ended, following = f"attempt {attempts.number} ended", f"attempt {attempts.number + 1} begins"
    if attempts.is_preparation:
        ended, following = "its preparation ended", "the next begins"
    message = f"{ended}: {trouble.message if trouble else 'stopped'}; {following} at {start}"
    return with_hint(message, trouble.hint if trouble else "")
