"""The state of one attempt, derived from its Job, its pods and their Events, with the cause if it does not start or failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

from tunesmith_api.failures import FailureClass
from tunesmith_api.status import LastFailure
from tunesmith_operator.plan.failures.hints import kind_of
from tunesmith_operator.plan.failures.last_failure import failure
from tunesmith_operator.plan.failures.pod_start import pending_failure
from tunesmith_operator.plan.failures.rejection import pod_creation_failure
from tunesmith_operator.plan.failures.termination import crash_failure, permanent_failure, termination_failure
from tunesmith_operator.plan.jobs.queueing import is_queued
from tunesmith_operator.plan.jobs.read import main_container, may_run
from tunesmith_operator.plan.names import is_deleting, name_of
from tunesmith_operator.plan.pods.members import has_started, leader, pod_count, root_cause, with_placement
from tunesmith_operator.plan.pods.read import condition, containers, is_finished, is_true, phase, reports
from tunesmith_operator.plan.types import Raw


class State(StrEnum):
    """State of the newest attempt of a role."""

    NONE = "None"
    QUEUED = "Queued"
    STARTING = "Starting"
    FETCHING = "Fetching"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


ACTIVE = frozenset({State.QUEUED, State.STARTING, State.FETCHING, State.RUNNING})

Finding = tuple[State, LastFailure | None]
"""A state; why the attempt failed or what keeps it from starting."""


def job_state(job: Raw, pods: Sequence[Raw], events: Sequence[Raw], now: datetime) -> Finding:
    """The state of the attempt that `job` runs. `pods` are its current members."""
    return _ended(job, pods, now) or _not_running(job, pods, now) or _active(job, pods, events)


def _ended(job: Raw, pods: Sequence[Raw], now: datetime) -> Finding | None:
    """The state of a Job with a terminal condition, or with a result."""
    pod = leader(pods)
    if pod and phase(pod) == "Succeeded" and main_container(job) in reports(pod):
        return State.SUCCEEDED, None
    if is_true(job, "Complete"):
        return State.FAILED, _why_no_result(job, pod)
    is_stopping = any(may_run(member, now) for member in pods)
    if is_true(job, "SuccessCriteriaMet"):
        return (State.RUNNING, None) if is_stopping else (State.FAILED, _why_no_result(job, pod))
    if is_true(job, "Failed") or (is_true(job, "FailureTarget") and not is_stopping):
        return State.FAILED, _why_failed(job, pods, now)
    return None


def _not_running(job: Raw, pods: Sequence[Raw], now: datetime) -> Finding | None:
    """The state of a Job that is suspended, has lost a pod, or can't succeed."""
    if is_queued(job):
        return State.QUEUED, None
    if any(is_deleting(pod) and not may_run(pod, now) and not is_finished(pod) for pod in pods):
        return State.FAILED, _why_failed(job, pods, now)
    if any(is_deleting(pod) for pod in pods) and condition(job, "Suspended"):
        return State.STARTING, None  # its queue has stopped the Job and admitted it again
    doomed = _first(permanent_failure(pod) for pod in pods)
    return (State.FAILED, doomed) if doomed else None


def _active(job: Raw, pods: Sequence[Raw], events: Sequence[Raw]) -> Finding:
    """The state of a Job whose pods are to run or do."""
    pending = _first(pending_failure(pod, events) for pod in pods)
    if len(pods) < pod_count(job):
        return State.STARTING, with_placement(job, pods, pending or pod_creation_failure(job, events))
    if not all(has_started(pod) for pod in pods):
        return State.STARTING, with_placement(job, pods, pending)
    state = State.RUNNING if all(_has_fetched(pod) for pod in pods) else State.FETCHING
    return state, pending or _first(crash_failure(pod) for pod in pods)


def _has_fetched(pod: Raw) -> bool:
    started = [container for container in containers(pod) if container.running or container.terminated]
    return all(container.is_over for container in started if container.name == "fetch") or len(started) > 1


def _first(troubles: Iterable[LastFailure | None]) -> LastFailure | None:
    return next((trouble for trouble in troubles if trouble), None)


def _why_no_result(job: Raw, pod: Raw | None) -> LastFailure:
    """Why a Job that succeeded has no result. The next attempt adopts the finished run from the store."""
    if pod is None:
        text = f"the pod of Job {name_of(job)} was deleted before its result was read"
        return failure(FailureClass.PREEMPTED, text, kind=kind_of(job))
    container = main_container(job)
    return failure(
        FailureClass.PROCESS_ERROR,
        f"container {container} of pod {name_of(pod)} exited with code 0 and left no report",
        "check that images.runtime in the chart's values is this version's runtime image",
        kind_of(job),
        pod=name_of(pod),
        container=container,
    )


def _why_failed(job: Raw, pods: Sequence[Raw], now: datetime) -> LastFailure:
    """The root cause among the pods. A pod that is still stopping is no evidence unless nothing else is known."""
    failed = condition(job, "Failed") or condition(job, "FailureTarget")
    if failed.get("reason") == "DeadlineExceeded":
        text = f"Job {name_of(job)}: {failed.get('message')}"
        return failure(FailureClass.DEADLINE_EXCEEDED, text, kind=kind_of(job))
    lost = [pod for pod in pods if not is_finished(pod) and not may_run(pod, now)]
    causes = [termination_failure(pod) for pod in pods if phase(pod) == "Failed"] + [_node_lost(pod) for pod in lost]
    if cause := root_cause(causes):
        return cause
    if pods:
        return termination_failure(pods[0]) if is_finished(pods[0]) else _node_lost(pods[0])
    return failure(FailureClass.PREEMPTED, f"the pod of Job {name_of(job)} was deleted", kind=kind_of(job))


def _node_lost(pod: Raw) -> LastFailure:
    text = f"pod {name_of(pod)}: its node does not respond"
    return failure(FailureClass.NODE_LOST, text, kind=kind_of(pod), pod=name_of(pod))
