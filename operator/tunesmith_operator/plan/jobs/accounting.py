"""What attempts cost: how long they waited, and how many devices they held for how long.

Status has a row for each stay of an attempt's pods on their nodes. Open rows are computed from the Jobs and pods in every
reconcile, and the totals change by the difference, so that a repeated reconcile or a lost write counts nothing twice. Times
are those of the scheduler, the kubelets and the Job controller, in whole seconds. A growing sum alone causes no write
(`closes_a_row`). The row of a stay that succeeded is closed immediately: devices that a hanging pod holds after that are not
counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain

from tunesmith_api.failures import FAILURES, FailureClass, Retry
from tunesmith_operator.plan.jobs.attempts import Attempts, Role
from tunesmith_operator.plan.jobs.read import (
    admitted_at,
    attempt_number,
    controller,
    created_at,
    ended_at,
    is_over,
    is_suspended,
    may_run,
    suspended_at,
)
from tunesmith_operator.plan.jobs.state import State
from tunesmith_operator.plan.names import is_deleting, metadata, name_of
from tunesmith_operator.plan.pods.read import condition, containers, is_finished, is_true
from tunesmith_operator.plan.pods.template import GRACE_SECONDS
from tunesmith_operator.plan.times import format_time, parse_time
from tunesmith_operator.plan.types import Raw

FIELDS = frozenset({"attempts", "acceleratorHours", "queuedSeconds", "preemptions"})
SUCCEEDED, SUSPENDED, STOPPED = "Succeeded", "Suspended", "Stopped"
"""Outcomes that are no failure. Stopped: the job as a whole ended."""
ROWS_KEPT = 8
"""Rows of each role in status."""
STAYS_PER_RECONCILE = 2
"""Since the last reconcile, at most one stay of a Job has ended and one has begun."""
EARLIEST = datetime.min.replace(tzinfo=UTC)
NOT_COUNTED = frozenset(str(class_) for class_, failure in FAILURES.items() if failure.retry is Retry.ALWAYS)


@dataclass(frozen=True)
class Account:
    """Everything that the rows of one role follow from."""

    attempts: Attempts
    devices: int
    """Devices of one pod."""
    stopped: str | None
    """Outcome of an attempt that the operator ends; None if it ends none."""
    now: datetime

    @property
    def role(self) -> Role:
        """The role whose attempts are counted."""
        return self.attempts.role

    def pods_of(self, job: Raw) -> list[Raw]:
        """The pods of a Job."""
        return [pod for pod in self.attempts.pods if controller(pod).get("name") == name_of(job)]

    def orphans_of(self, number: int) -> list[Raw]:
        """The pods of an attempt whose Job is gone."""
        return [pod for pod in self.attempts.pods if str(controller(pod).get("name") or "").endswith(f"-{number}")]


def cost_fields(status: Raw, roles: Iterable[Account]) -> Raw:
    """The fields of status about attempts and their cost, from those in `status` and the observed Jobs and pods."""
    before: list[Raw] = status.get("attempts") or []
    accounts = tuple(roles)
    rows = [_rows(before, account) for account in accounts]
    after = list(chain.from_iterable(rows))
    held = round(3600 * (status.get("acceleratorHours") or 0)) + _sum(after, "acceleratorSeconds")
    held -= _sum(before, "acceleratorSeconds")
    queued = (status.get("queuedSeconds") or 0) + _sum(after, "queuedSeconds") - _sum(before, "queuedSeconds")
    preempted = (status.get("preemptions") or 0) + _preempted(after) - _preempted(before)
    return {
        "attempts": list(chain.from_iterable(of_role[-ROWS_KEPT:] for of_role in rows)) or None,
        "acceleratorHours": round(held / 3600, 4) if any(account.devices for account in accounts) else None,
        "queuedSeconds": queued,
        "preemptions": preempted or None,
    }


def recorded_failures(status: Raw, role: Role) -> int:
    """Counted failures of a role by status. The status of releases without rows has one figure."""
    if "attempts" not in status:
        return int(status.get("failures") or 0)
    rows = (row for row in status["attempts"] if row.get("role") == role.status_name)
    return max((row.get("failures") or 0 for row in rows), default=0)


def recorded_number(status: Raw, role: Role, stem: str) -> int:
    """The newest attempt of a role by status: by the rows of the role and the names of its Jobs, which begin with `stem`.

    A kind with one role, and a status without rows and children, have one figure.
    """
    rows, children = status.get("attempts") or [], status.get("children") or []
    if role.status_name is None or not (rows or children):
        return int(status.get("attempt") or 0)
    suffixes = [child["name"].removeprefix(stem) for child in children if child["name"].startswith(stem)]
    in_rows = [int(row["number"]) for row in rows if row.get("role") == role.status_name]
    return max([0, *in_rows, *(int(suffix) for suffix in suffixes if suffix.isdecimal())])


def closes_a_row(old: Raw, new: Raw) -> bool:
    """Whether a row was closed, or its outcome became known: what must not be lost."""
    return _settled_rows(old) != _settled_rows(new)


def _settled_rows(status: Raw) -> list[Raw]:
    return [row for row in status.get("attempts") or [] if "outcome" in row or "endTime" in row]


def _sum(rows: Iterable[Raw], name: str) -> int:
    return sum(row.get(name) or 0 for row in rows)


def _preempted(rows: Iterable[Raw]) -> int:
    return sum(row.get("outcome") in NOT_COUNTED for row in rows)


def _rows(before: Sequence[Raw], account: Account) -> list[Raw]:
    """The rows of a role, oldest first: open rows brought up to date, and rows of stays that have begun since."""
    rows: list[Raw] = []
    for row in (row for row in before if row.get("role") == account.role.status_name):
        rows.append(row if "endTime" in row else _update(row, rows[-1:], account))
    newest = max((row["number"] for row in rows), default=0)
    for job in (job for job in account.attempts.jobs for _ in range(STAYS_PER_RECONCILE)):
        if attempt_number(job) >= newest and _needs_row(job, rows, account):
            rows.append(_update(_new_row(attempt_number(job), account), rows[-1:], account))
            newest = attempt_number(job)
    if account.attempts.number > newest:  # its Job was created and deleted between two reconciles
        rows.append(_update(_new_row(account.attempts.number, account), rows[-1:], account))
    return rows


def _new_row(number: int, account: Account) -> Raw:
    return {"number": number, **({"role": account.role.status_name} if account.role.status_name else {})}


def _needs_row(job: Raw, rows: Sequence[Raw], account: Account) -> bool:
    """Whether a Job has no row yet, or a further stay: its queue stopped the Job and admitted it again."""
    own = [row for row in rows if row["number"] == attempt_number(job)]
    if not own:
        return True
    if "endTime" not in own[-1]:
        return False
    ended = parse_time(own[-1]["endTime"])
    is_newest = account.attempts.job is job and account.attempts.is_active
    waits_again = own[-1].get("outcome") in NOT_COUNTED and is_newest
    return waits_again or any(placed_at(pod) and _is_after(pod, ended, account.now) for pod in account.pods_of(job))


def _update(row: Raw, previous: Sequence[Raw], account: Account) -> Raw:
    """An open row as of now; closed when its outcome is known and its pods have stopped."""
    now = account.now
    job = next((job for job in account.attempts.jobs if attempt_number(job) == row["number"]), None)
    last = previous[-1] if previous and previous[-1]["number"] == row["number"] else None
    since = parse_time(last["endTime"]) if last else created_at(job) if job else None
    readmitted = _readmitted_at(row, job, account)
    pods = [pod for pod in _pods_of_row(row, job, account, readmitted) if not last or _is_after(pod, since, now)]
    start = parse_time(row.get("startTime")) or min((at for pod in pods if (at := placed_at(pod))), default=None)
    outcome = row.get("outcome") or _outcome(row, job, start, readmitted, account)
    runs = outcome != SUCCEEDED and any(may_run(pod, now) for pod in pods)  # pod 0 reports success for all
    end = _last_end(pods, job, readmitted, start, account) if outcome is not None and not runs else None
    wait = ((start or end or now) - since).total_seconds() if since else row.get("queuedSeconds") or 0
    new = {
        **row,
        "startTime": format_time(start) if start else None,
        "outcome": outcome,
        "endTime": format_time(end) if end else None,
        "queuedSeconds": max(int(wait), 0),
        "acceleratorSeconds": _device_seconds(row, pods, start, end, account) if account.devices else None,
        "failures": row.get("failures") or (account.attempts.failures or None if outcome else None),
    }
    return {name: value for name, value in new.items() if value is not None}


def _readmitted_at(row: Raw, job: Raw | None, account: Account) -> datetime | None:
    """When a queue admitted the Job again after the stay of a row; None if it has not."""
    start, admitted = parse_time(row.get("startTime")), admitted_at(job) if job else None
    if not (job and start and admitted and admitted > start):
        return None
    return None if any(placed_at(pod) == start for pod in account.pods_of(job)) else admitted


def _pods_of_row(row: Raw, job: Raw | None, account: Account, readmitted: datetime | None) -> list[Raw]:
    """The pods of a stay: all pods of its attempt except those created after its queue had stopped the Job."""
    pods = account.pods_of(job) if job else account.orphans_of(row["number"])
    continues = job is not None and not is_over(job) and not is_deleting(job)
    if continues and (readmitted or row.get("outcome") in NOT_COUNTED):
        pods = [pod for pod in pods if is_deleting(pod) or is_finished(pod)]
    return [pod for pod in pods if not readmitted or not (at := placed_at(pod)) or at < readmitted]


def _outcome(
    row: Raw, job: Raw | None, start: datetime | None, readmitted: datetime | None, account: Account
) -> str | None:
    attempts = account.attempts
    if readmitted or (job and start and is_suspended(job) and not is_over(job) and attempts.state is State.QUEUED):
        return str(FailureClass.PREEMPTED)
    is_newest = attempts.job is not None and row["number"] == attempt_number(attempts.job)
    if is_newest and attempts.state is State.SUCCEEDED:
        return SUCCEEDED
    if is_newest and attempts.state is State.FAILED and attempts.trouble:
        return str(attempts.trouble.class_)
    if account.stopped and not (job and is_over(job)):
        return account.stopped
    return None if is_newest else str(FailureClass.PREEMPTED)


def _device_seconds(
    row: Raw, pods: Sequence[Raw], start: datetime | None, end: datetime | None, account: Account
) -> int:
    """Devices times seconds. Pods that were never observed count from the start of the first, or as the row has it."""
    stays = [(_released_at(pod, account.now) or end or account.now) - at for pod in pods if (at := placed_at(pod))]
    observed = account.devices * sum(max(int(stay.total_seconds()), 0) for stay in stays)
    if len(stays) >= account.role.pods:
        return observed
    unseen = (
        account.devices * account.role.pods * int((end - start).total_seconds()) if start and end and not stays else 0
    )
    return max(observed, unseen, row.get("acceleratorSeconds") or 0)


def _last_end(
    pods: Sequence[Raw], job: Raw | None, readmitted: datetime | None, start: datetime | None, account: Account
) -> datetime:
    """When the last pod of a stay stopped; without an observed pod, the earliest time at which all must have stopped."""
    ends = [end for pod in pods if (end := _released_at(pod, account.now))]
    if ends:
        return max(ends)
    held = suspended_at(job) if job and is_suspended(job) else None
    killed = held + timedelta(seconds=GRACE_SECONDS) if held and start and held > start else None
    bounds = (account.now, readmitted, ended_at(job) if job else None, killed)
    return max(min(bound for bound in bounds if bound), start or EARLIEST)


def placed_at(pod: Raw) -> datetime | None:
    """When a pod got its node and with it its devices."""
    scheduled = condition(pod, "PodScheduled") if is_true(pod, "PodScheduled") else {}
    status = pod.get("status") or {}
    return parse_time(scheduled.get("lastTransitionTime")) or parse_time(status.get("startTime"))


def _released_at(pod: Raw, now: datetime) -> datetime | None:
    """When a pod released its devices; None while it may hold them."""
    deletion = parse_time(metadata(pod).get("deletionTimestamp"))
    if not is_finished(pod):
        return None if may_run(pod, now) else deletion
    ends = [end for container in containers(pod) if (end := parse_time(container.terminated.get("finishedAt")))]
    disrupted = parse_time(condition(pod, "DisruptionTarget").get("lastTransitionTime"))
    return max(ends, default=None) or disrupted or deletion


def _is_after(pod: Raw, moment: datetime | None, now: datetime) -> bool:
    """Whether a pod belongs to a stay that began after `moment`."""
    at, end = placed_at(pod), _released_at(pod, now)
    if end is None and is_finished(pod):
        end = at  # the kubelet rejected it: none of its containers has run
    return moment is None or ((at is None or at >= moment) and (end is None or end > moment))
