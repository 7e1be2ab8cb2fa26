"""How the Jobs of one role went, and what comes next: attempts, retries, backoff.

Nothing is remembered: an attempt's number is in its Job's name, and how many failures counted before it in the Job's
annotation. Where the Job is gone, status has both, for work: a number is never used twice, so no finished Job is run again.
What prepares work may be made anew where it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property

from tunesmith_api.common import LastFailure
from tunesmith_api.failures import FAILURES, FailureClass, Retry
from tunesmith_api.run import RunReport, RunSpec, Verb
from tunesmith_operator.plan.failures.last_failure import failure, kind_of
from tunesmith_operator.plan.failures.pod_start import pending_failure
from tunesmith_operator.plan.failures.rejection import pod_creation_failure
from tunesmith_operator.plan.failures.termination import crash_failure, permanent_failure, termination_failure
from tunesmith_operator.plan.names import (
    ATTEMPT_ANNOTATION,
    FAILURES_ANNOTATION,
    ROLE_LABEL,
    annotation,
    is_deleting,
    key_of,
    label,
    metadata,
    name_of,
    uid_of,
)
from tunesmith_operator.plan.pods.members import (
    current_members,
    has_started,
    leader,
    pod_count,
    root_cause,
    with_placement,
)
from tunesmith_operator.plan.pods.read import condition, containers, is_finished, is_true, phase, reports
from tunesmith_operator.plan.pods.template import run_spec_of
from tunesmith_operator.plan.times import parse_time
from tunesmith_operator.plan.types import Key, Observed, Raw

FIRST_DELAY, LONGEST_DELAY = timedelta(seconds=10), timedelta(minutes=10)
"""Backoff after failures that count: 10 s, 20 s, 40 s ... 10 min."""
SHORT_LIFE = timedelta(seconds=60)
DELAY, DELAY_AFTER_SHORT_LIFE = timedelta(seconds=2), timedelta(seconds=20)
"""Wait after failures that do not count; longer where the attempt hardly lived, lest a sick node make a storm."""
ENDS = ("Failed", "FailureTarget", "Complete", "SuccessCriteriaMet")
"""Conditions of a Job that has ended, or is about to."""
PATIENCE_WITH_LOST_PODS = timedelta(seconds=30)
"""A pod that is still there so long after it should have been gone is on a node that does not answer."""


class State(StrEnum):
    """How the newest attempt stands."""

    NONE = "None"
    QUEUED = "Queued"
    STARTING = "Starting"
    PREPARING = "Preparing"
    """No state of a Job, but how one that prepares is told of."""
    FETCHING = "Fetching"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


ACTIVE = frozenset({State.QUEUED, State.STARTING, State.FETCHING, State.RUNNING})


@dataclass(frozen=True)
class Course:
    """How one role of a resource stands: all that follows from its Jobs and pods."""

    role: str
    number: int
    """The newest attempt's, whether its Job is still there or not; 0 before the first."""
    failures: int
    """Failures so far that count, the newest attempt's among them."""
    state: State
    job: Raw | None = None
    """The newest attempt's Job; None where it is gone."""
    pod: Raw | None = None
    """That Job's pod, of several the one that speaks for all; None where there is none."""
    trouble: LastFailure | None = None
    """Why it failed; for an active attempt, what keeps it from starting."""
    stopping: tuple[str, ...] = ()
    """Pods of former attempts that may still be at work."""
    jobs: tuple[Raw, ...] = ()
    """All Jobs of the role, oldest first."""
    pods: tuple[Raw, ...] = ()
    """All pods of the role, of Jobs that are gone among them."""
    members: tuple[Raw, ...] = ()
    """The newest attempt's pods: several where they train together."""
    called: str = ""
    """The role label of its Jobs: another than `role` where they prepare the work, and do not do it."""

    @property
    def prepares(self) -> bool:
        """Whether these are the Jobs that prepare the work."""
        return self.called != self.role

    @cached_property
    def run(self) -> RunSpec | None:
        """What the newest attempt was told."""
        return run_spec_of(self.job["spec"]["template"]) if self.job else None

    @property
    def has_begun(self) -> bool:
        """Whether a container of the newest attempt has run."""
        return any(has_started(pod) for pod in self.members)

    @cached_property
    def reports(self) -> dict[str, RunReport]:
        """By container: the reports of the newest attempt."""
        return reports(self.pod) if self.pod else {}

    @property
    def found(self) -> RunReport | None:
        """What the newest attempt has told of its model, once it has looked."""
        return self.reports.get(Verb.FETCH) or self.reports.get(Verb.PREPARE)

    @property
    def result(self) -> RunReport:
        """What the newest attempt has come to: its last container's report, once it has succeeded."""
        assert self.job is not None
        return self.reports[_main(self.job)]

    @property
    def unfinished(self) -> tuple[Key, ...]:
        """Jobs that may still have pods at work."""
        return tuple(key_of(job, "Job") for job in self.jobs if not is_over(job) and not is_deleting(job))

    @property
    def former(self) -> tuple[Key, ...]:
        """Those of them that are not the newest attempt's: to be deleted, and nobody has done it yet."""
        return tuple(key for key in self.unfinished if self.job is None or key != key_of(self.job, "Job"))

    @property
    def stale(self) -> tuple[Key, ...]:
        """Jobs of long ago: the newest and the one before it are kept to be looked at."""
        return tuple(key_of(job, "Job") for job in self.jobs[:-2] if not is_deleting(job))


def follow(
    role: str,
    observed: Observed,
    known_number: int,
    known_failures: int,
    now: datetime,
    preparing: str | None = None,
) -> Course:
    """How the work of a role stands, or the Jobs labelled `preparing`, which prepare it. `known_*` is what status says of
    Jobs that are gone; of what prepares it says nothing."""
    called = preparing or role
    jobs = tuple(sorted((job for job in observed.jobs if label(job, ROLE_LABEL) == called), key=number_of))
    job = jobs[-1] if jobs and not is_deleting(jobs[-1]) else None
    number = max([known_number, *map(number_of, jobs)])
    pods = [pod for pod in observed.pods if label(pod, ROLE_LABEL) == called]
    own = current_members(pod for pod in pods if job and _belongs(pod, job))
    state, trouble = _state(job, own, observed, now) if job else (State.NONE, None)
    former = [pod for pod in pods if state not in ACTIVE or not (job and _belongs(pod, job))]
    noted = (annotation(job, FAILURES_ANNOTATION) or "0") if job else ""
    before = int(noted) if noted.isdecimal() else known_failures
    counts = state is State.FAILED and trouble is not None and FAILURES[trouble.class_].retry is Retry.COUNTED
    return Course(
        role=role,
        number=number,
        failures=before + counts,
        state=state,
        job=job,
        pod=leader(own),
        trouble=trouble,
        stopping=tuple(name_of(pod) for pod in former if may_work(pod, now)),
        jobs=jobs,
        pods=tuple(pods),
        members=own,
        called=called,
    )


def is_over(job: Raw) -> bool:
    """Whether a Job has ended, well or badly, or is about to."""
    return any(is_true(job, type_) for type_ in ENDS)


def is_suspended(job: Raw) -> bool:
    """Whether a Job may have no pods for now: its queue, or somebody, holds it."""
    return bool((job.get("spec") or {}).get("suspend"))


def admitted(job: Raw) -> datetime | None:
    """When a Job was let start, the last time; None while it is held, or before its controller has noted it."""
    return None if is_suspended(job) else parse_time((job.get("status") or {}).get("startTime"))


def is_given_up(course: Course, retries: int) -> bool:
    """Whether no new attempt will be made after the failure of the newest."""
    if course.state is not State.FAILED or course.trouble is None:
        return False
    retry = FAILURES[course.trouble.class_].retry
    return retry in (Retry.NEVER, Retry.WAITS) or (retry is Retry.COUNTED and course.failures > retries)


def next_start(course: Course, now: datetime) -> datetime:
    """When the next attempt may begin."""
    if course.state is not State.FAILED or course.job is None or course.trouble is None:
        return now
    ended = over_since(course.job) or parse_time(course.trouble.time)
    if ended is None:
        return now
    if FAILURES[course.trouble.class_].retry is Retry.COUNTED:
        doubled: timedelta = FIRST_DELAY * 2 ** min(course.failures - 1, 10)
        return ended + min(doubled, LONGEST_DELAY)
    created = parse_time(metadata(course.job).get("creationTimestamp")) or ended
    return ended + (DELAY if ended - created >= SHORT_LIFE else DELAY_AFTER_SHORT_LIFE)


def _state(job: Raw, pods: Sequence[Raw], observed: Observed, now: datetime) -> tuple[State, LastFailure | None]:
    pod = leader(pods)
    if pod and phase(pod) == "Succeeded" and _main(job) in reports(pod):
        return State.SUCCEEDED, None
    if is_true(job, "Complete"):
        return State.FAILED, _why_resultless(job, pod)
    if is_true(job, "SuccessCriteriaMet"):
        others_stop = any(may_work(one, now) for one in pods)
        return (State.RUNNING, None) if others_stop else (State.FAILED, _why_resultless(job, pod))
    is_stopping = is_true(job, "FailureTarget") and any(may_work(one, now) for one in pods)
    if is_true(job, "Failed") or (is_true(job, "FailureTarget") and not is_stopping):
        return State.FAILED, _why_failed(job, pods, now)
    if is_suspended(job):
        return State.QUEUED, None
    if any(is_deleting(one) and not may_work(one, now) and not is_finished(one) for one in pods):
        return State.FAILED, _why_failed(job, pods, now)
    if any(is_deleting(one) for one in pods) and condition(job, "Suspended"):
        return State.STARTING, None  # it was stopped by its queue, which has admitted the Job anew
    if doomed := _first(permanent_failure(one) for one in pods):
        return State.FAILED, doomed
    pending = _first(pending_failure(one, observed.events) for one in pods)
    if len(pods) < pod_count(job):
        return State.STARTING, with_placement(job, pods, pending or pod_creation_failure(job, observed.events))
    if not all(has_started(one) for one in pods):
        return State.STARTING, with_placement(job, pods, pending)
    fetched = all(_has_fetched(one) for one in pods)
    return (State.RUNNING if fetched else State.FETCHING), pending or _first(crash_failure(one) for one in pods)


def _has_fetched(pod: Raw) -> bool:
    begun = [one for one in containers(pod) if one.running or one.terminated]
    return all(one.is_over for one in begun if one.name == "fetch") or len(begun) > 1


def _first(troubles: Iterable[LastFailure | None]) -> LastFailure | None:
    return next((one for one in troubles if one), None)


def _main(job: Raw) -> str:
    """The container whose report is the result."""
    return str(((job["spec"]["template"].get("spec") or {}).get("containers") or [{}])[0].get("name"))


def _why_resultless(job: Raw, pod: Raw | None) -> LastFailure:
    """Why a Job that ended well has no result. A new attempt finds the finished run in the store and adopts it."""
    if pod is None:
        text = f"the pod of Job {name_of(job)} was deleted before its result was read"
        return failure(FailureClass.PREEMPTED, text, kind=kind_of(job))
    return failure(
        FailureClass.PROCESS_ERROR,
        f"container {_main(job)} of pod {name_of(pod)} ended well and left no report",
        "check that images.runtime in the chart's values is this version's runtime image",
        kind_of(job),
        pod=name_of(pod),
        container=_main(job),
    )


def _why_failed(job: Raw, pods: Sequence[Raw], now: datetime) -> LastFailure:
    """Why the first of its pods failed; of a pod that is still stopping nothing is known yet."""
    failed = condition(job, "Failed") or condition(job, "FailureTarget")
    if failed.get("reason") == "DeadlineExceeded":
        text = f"Job {name_of(job)}: {failed.get('message')}"
        return failure(FailureClass.DEADLINE_EXCEEDED, text, kind=kind_of(job))
    unfinished = [pod for pod in pods if not is_finished(pod)]
    causes = [termination_failure(pod) for pod in pods if phase(pod) == "Failed"]
    causes += [_lost(pod) for pod in unfinished if not may_work(pod, now)]
    deleted = failure(FailureClass.PREEMPTED, f"the pod of Job {name_of(job)} was deleted", kind=kind_of(job))
    guesses = [_lost(pod) if pod in unfinished else termination_failure(pod) for pod in pods]
    return root_cause(causes) or _first(guesses) or deleted


def _lost(pod: Raw) -> LastFailure:
    text = f"pod {name_of(pod)}: its node does not answer"
    return failure(FailureClass.NODE_LOST, text, kind=kind_of(pod), pod=name_of(pod))


def may_work(pod: Raw, now: datetime) -> bool:
    """Whether containers of a pod may still run: it has not finished, nor is it overdue to have gone."""
    if is_finished(pod):
        return False
    gone = parse_time(metadata(pod).get("deletionTimestamp"))
    return gone is None or now < gone + PATIENCE_WITH_LOST_PODS


def over_since(job: Raw) -> datetime | None:
    """When a Job ended, by its controller; None while it goes on."""
    ends = (condition(job, type_) for type_ in ENDS)
    return parse_time(next((end for end in ends if end), {}).get("lastTransitionTime"))


def number_of(job: Raw) -> int:
    """The attempt that a Job is."""
    text = annotation(job, ATTEMPT_ANNOTATION) or name_of(job).rpartition("-")[2]
    return int(text) if text.isdecimal() else 0


def _belongs(pod: Raw, job: Raw) -> bool:
    owners = metadata(pod).get("ownerReferences") or []
    return any(owner.get("controller") and owner.get("uid") == uid_of(job) for owner in owners)
