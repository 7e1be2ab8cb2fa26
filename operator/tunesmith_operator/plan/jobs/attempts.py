"""The attempts of one role of a job: the state of the newest, how many failed, and when the next may start.

The operator keeps no memory of its own. The number of an attempt is in the name of its Job, and the failures before it are
in an annotation. Status repeats both for work whose Job is gone, so that a number is never used twice and finished work
never runs again. Jobs that prepare work may be created again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from tunesmith_api.failures import FAILURES, Retry
from tunesmith_api.run import RunReport, RunSpec, Verb
from tunesmith_api.status import LastFailure
from tunesmith_operator.plan.jobs.read import (
    attempt_number,
    controls,
    created_at,
    ended_at,
    is_over,
    main_container,
    may_run,
)
from tunesmith_operator.plan.jobs.state import ACTIVE, State, job_state
from tunesmith_operator.plan.names import (
    FAILURES_ANNOTATION,
    ROLE_LABEL,
    annotation,
    is_deleting,
    key_of,
    label,
    name_of,
)
from tunesmith_operator.plan.pods.members import current_members, has_started, leader
from tunesmith_operator.plan.pods.read import reports
from tunesmith_operator.plan.pods.template import run_spec_of
from tunesmith_operator.plan.times import parse_time
from tunesmith_operator.plan.types import Key, Observed, Raw

FIRST_BACKOFF, LONGEST_BACKOFF = timedelta(seconds=10), timedelta(minutes=10)
"""Backoff after failures that count: 10 s, 20 s, 40 s ... 10 min."""
SHORT_LIFE = timedelta(seconds=60)
RESTART_DELAY, RESTART_DELAY_AFTER_SHORT_LIFE = timedelta(seconds=2), timedelta(seconds=20)
"""Delay after failures that do not count; longer after a short life, so that a faulty node causes no storm of Jobs."""
JOBS_KEPT = 2
"""Jobs of a role that are kept for inspection: the newest and the one before it."""


@dataclass(frozen=True)
class Role:
    """What one Job at a time does for a resource."""

    label: str
    """Role label of its Jobs and pods; part of their names."""
    preparation_label: str
    """Role label of the Jobs that prepare its work."""
    status_name: str | None = None
    """How status names the role; None if the kind has only one."""
    pods: int = 1
    """Pods of an attempt."""
    holds_devices: bool = True
    """Whether its pods request the devices of spec.resources."""


@dataclass(frozen=True)
class Attempts:
    """The attempts of one role, or those of its preparation: everything that follows from their Jobs and pods."""

    role: Role
    label: str
    """Role label of these Jobs: the role's own or that of its preparation."""
    number: int
    """The newest attempt, even if its Job is gone; 0 before the first."""
    failures: int
    """Failures that count towards spec.retries, including that of the newest attempt."""
    state: State
    job: Raw | None = None
    """The newest attempt's Job; None if it is gone or is being deleted."""
    pod: Raw | None = None
    """The pod that reports for that Job: its only one, or pod 0."""
    trouble: LastFailure | None = None
    """Why the newest attempt failed or, while it is active, what keeps it from starting."""
    stopping: tuple[str, ...] = ()
    """Names of pods of earlier attempts that may still run."""
    jobs: tuple[Raw, ...] = ()
    """All Jobs with the label, oldest first."""
    pods: tuple[Raw, ...] = ()
    """All pods with the label, including those of Jobs that are gone."""
    members: tuple[Raw, ...] = ()
    """The newest attempt's pods, by completion index."""

    @property
    def is_preparation(self) -> bool:
        """Whether these Jobs prepare the work instead of doing it."""
        return self.label != self.role.label

    @property
    def is_active(self) -> bool:
        """Whether the newest attempt is queued, starting or running."""
        return self.state in ACTIVE

    @property
    def is_idle(self) -> bool:
        """Whether no attempt is active and none has succeeded."""
        return not self.is_active and self.state is not State.SUCCEEDED

    @cached_property
    def run(self) -> RunSpec | None:
        """The RunSpec of the newest attempt."""
        return run_spec_of(self.job["spec"]["template"]) if self.job else None

    @property
    def has_started(self) -> bool:
        """Whether a container of the newest attempt has run."""
        return any(has_started(pod) for pod in self.members)

    @cached_property
    def reports(self) -> dict[str, RunReport]:
        """Reports of the newest attempt's pod, by container."""
        return reports(self.pod) if self.pod else {}

    @property
    def fetch_report(self) -> RunReport | None:
        """The report that names the model as it was read from the store."""
        return self.reports.get(Verb.FETCH) or self.reports.get(Verb.PREPARE)

    @property
    def model_is_known(self) -> bool:
        """Whether the model may be shown in status: its work has started, or its preparation has reported. A name of the
        catalogue is shown as the URI that it stands for, once a pod has looked it up."""
        if self.run is None or not self.has_started:
            return False
        fetched = self.fetch_report
        is_looked_up = not self.run.subject.is_named or bool(fetched and fetched.model_uri)
        return is_looked_up and (bool(fetched) or not self.is_preparation)

    @property
    def result(self) -> RunReport:
        """The report of the main container of an attempt that has succeeded."""
        assert self.job is not None
        return self.reports[main_container(self.job)]

    @property
    def unfinished(self) -> tuple[Key, ...]:
        """Jobs that may still have running pods and are not being deleted."""
        return tuple(key_of(job, "Job") for job in self.jobs if not is_over(job) and not is_deleting(job))

    @property
    def superseded(self) -> tuple[Key, ...]:
        """Unfinished Jobs other than the newest attempt's, which are to be deleted."""
        return tuple(key for key in self.unfinished if self.job is None or key != key_of(self.job, "Job"))

    @property
    def outdated(self) -> tuple[Key, ...]:
        """Jobs beyond those kept for inspection."""
        return tuple(key_of(job, "Job") for job in self.jobs[:-JOBS_KEPT] if not is_deleting(job))


def read_attempts(
    role: Role, label_: str, observed: Observed, now: datetime, number: int = 0, failures: int = 0
) -> Attempts:
    """Read the attempts whose Jobs have the role label `label_`.

    `number` and `failures` are the newest attempt and the counted failures by status, for Jobs that are gone.
    """
    jobs = tuple(sorted((job for job in observed.jobs if label(job, ROLE_LABEL) == label_), key=attempt_number))
    pods = tuple(pod for pod in observed.pods if label(pod, ROLE_LABEL) == label_)
    job = jobs[-1] if jobs and not is_deleting(jobs[-1]) else None
    members = current_members(pod for pod in pods if job and controls(job, pod))
    state, trouble = job_state(job, members, observed.events, now) if job else (State.NONE, None)
    earlier = [pod for pod in pods if state not in ACTIVE or not (job and controls(job, pod))]
    return Attempts(
        role=role,
        label=label_,
        number=max([number, *map(attempt_number, jobs)]),
        failures=_failures_before(job, failures) + _counts(state, trouble),
        state=state,
        job=job,
        pod=leader(members),
        trouble=trouble,
        stopping=tuple(name_of(pod) for pod in earlier if may_run(pod, now)),
        jobs=jobs,
        pods=pods,
        members=members,
    )


def is_given_up(attempts: Attempts, retries: int) -> bool:
    """Whether the failure of the newest attempt is permanent or uses up the retries."""
    if attempts.state is not State.FAILED or attempts.trouble is None:
        return False
    retry = FAILURES[attempts.trouble.class_].retry
    return retry in (Retry.NEVER, Retry.WAITS) or (retry is Retry.COUNTED and attempts.failures > retries)


def next_start(attempts: Attempts, now: datetime) -> datetime:
    """When the next attempt may start."""
    if attempts.state is not State.FAILED or attempts.job is None or attempts.trouble is None:
        return now
    ended = ended_at(attempts.job) or parse_time(attempts.trouble.time)
    if ended is None:
        return now
    if FAILURES[attempts.trouble.class_].retry is Retry.COUNTED:
        doubled: timedelta = FIRST_BACKOFF * 2 ** min(attempts.failures - 1, 10)
        return ended + min(doubled, LONGEST_BACKOFF)
    created = created_at(attempts.job) or ended
    return ended + (RESTART_DELAY if ended - created >= SHORT_LIFE else RESTART_DELAY_AFTER_SHORT_LIFE)


def _failures_before(job: Raw | None, in_status: int) -> int:
    """Counted failures before the newest attempt: by the annotation of its Job, else by status."""
    text = (annotation(job, FAILURES_ANNOTATION) or "0") if job else ""
    return int(text) if text.isdecimal() else in_status


def _counts(state: State, trouble: LastFailure | None) -> bool:
    return state is State.FAILED and trouble is not None and FAILURES[trouble.class_].retry is Retry.COUNTED
