"""What attempts cost: how long they waited, and how many devices they held for how long.

Status has a row for each stay of an attempt's pods on their nodes. The rows that are still open are computed anew from
the Jobs and pods at every look, and the totals change by what the rows change: looking twice, or doing it again after a
write was lost, counts nothing twice. Times are those of the scheduler, the kubelets and the Job controller, in whole
seconds. A running sum alone is no reason for a write (`is_news`). A stay that has succeeded is closed at once: what a pod
that hangs after that holds until it is stopped is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain

from tunesmith_api.failures import FAILURES, FailureClass, Retry
from tunesmith_operator.plan.jobs.attempts import (
    ACTIVE,
    Course,
    State,
    admitted,
    is_over,
    is_suspended,
    may_work,
    number_of,
    over_since,
)
from tunesmith_operator.plan.names import is_deleting, metadata, name_of
from tunesmith_operator.plan.pods.read import condition, containers, is_finished, is_true
from tunesmith_operator.plan.pods.template import GRACE_SECONDS
from tunesmith_operator.plan.times import format_time, parse_time
from tunesmith_operator.plan.types import Raw

FIELDS = frozenset({"attempts", "acceleratorHours", "queuedSeconds", "preemptions"})
SUCCEEDED, SUSPENDED, STOPPED = "Succeeded", "Suspended", "Stopped"
"""Outcomes that are no failure; Stopped: the job as a whole ended."""
ROWS = 8
"""Kept of each role."""
STAYS_A_LOOK = 2
"""Of one Job there is one stay at most that is over and one that is not."""
EARLIEST = datetime.min.replace(tzinfo=UTC)
NOT_COUNTED = frozenset(str(class_) for class_, failure in FAILURES.items() if failure.retry is Retry.ALWAYS)


@dataclass(frozen=True)
class Account:
    """All that the rows of one role follow from."""

    role: str | None
    """How rows name it; None where there is but one."""
    course: Course
    devices: int
    """Of one pod."""
    width: int
    """Pods of an attempt."""
    stopped: str | None
    """The outcome of an attempt that is ended from outside of it; None: nobody does."""
    now: datetime


def accounts(status: Raw, roles: Iterable[Account]) -> Raw:
    """The fields of status that tell of attempts and their cost, from those in `status` and what is there now."""
    before: list[Raw] = status.get("attempts") or []
    counted = tuple(roles)
    rows = {one.role: _rows([row for row in before if row.get("role") == one.role], one) for one in counted}
    after = [row for one in counted for row in rows[one.role]]
    held = round(3600 * (status.get("acceleratorHours") or 0)) + _sum(after, "acceleratorSeconds")
    held -= _sum(before, "acceleratorSeconds")
    queued = (status.get("queuedSeconds") or 0) + _sum(after, "queuedSeconds") - _sum(before, "queuedSeconds")
    preempted = (status.get("preemptions") or 0) + _preempted(after) - _preempted(before)
    return {
        "attempts": list(chain.from_iterable(rows[one.role][-ROWS:] for one in counted)) or None,
        "acceleratorHours": round(held / 3600, 4) if any(one.devices for one in counted) else None,
        "queuedSeconds": queued,
        "preemptions": preempted or None,
    }


def failures_of(status: Raw, role: str | None) -> int:
    """Failures of a role that count, as status has them. Without rows (an older version's status) there is one figure."""
    if "attempts" not in status:
        return int(status.get("failures") or 0)
    return max((row.get("failures") or 0 for row in status["attempts"] if row.get("role") == role), default=0)


def number_known(status: Raw, role: str | None, stem: str) -> int:
    """The newest attempt that status knows of; where roles are named, by their rows and by the Jobs called `stem` and number
    (a status that has neither has one figure for all)."""
    rows, children = status.get("attempts") or [], status.get("children") or []
    if role is None or not (rows or children):
        return int(status.get("attempt") or 0)
    numbers = [child["name"].removeprefix(stem) for child in children if child["name"].startswith(stem)]
    told = [int(row["number"]) for row in rows if row.get("role") == role]
    return max([0, *told, *(int(number) for number in numbers if number.isdecimal())])


def is_news(old: Raw, new: Raw) -> bool:
    """Whether a row was closed, or its outcome became known: what must not be lost."""
    return _settled(old) != _settled(new)


def _settled(status: Raw) -> list[Raw]:
    return [row for row in status.get("attempts") or [] if "outcome" in row or "endTime" in row]


def _sum(rows: Iterable[Raw], name: str) -> int:
    return sum(row.get(name) or 0 for row in rows)


def _preempted(rows: Iterable[Raw]) -> int:
    return sum(row.get("outcome") in NOT_COUNTED for row in rows)


def _rows(before: Sequence[Raw], one: Account) -> list[Raw]:
    """The rows of a role, oldest first: open ones brought up to date, and one for what has begun since."""
    rows: list[Raw] = []
    for row in before:
        rows.append(row if "endTime" in row else _brought_up(row, rows[-1:], one))
    newest = max((row["number"] for row in rows), default=0)
    for job in (job for job in one.course.jobs for _ in range(STAYS_A_LOOK)):
        if number_of(job) >= newest and _has_more(job, rows, one):
            rows.append(_brought_up(_row(number_of(job), one), rows[-1:], one))
            newest = number_of(job)
    if one.course.number > newest:  # its Job was gone before any look saw it
        rows.append(_brought_up(_row(one.course.number, one), rows[-1:], one))
    return rows


def _row(number: int, one: Account) -> Raw:
    return {"number": number, **({"role": one.role} if one.role else {})}


def _has_more(job: Raw, rows: Sequence[Raw], one: Account) -> bool:
    """Whether a Job has something to tell that no row tells: all of it, or what came after its queue had stopped it."""
    mine = [row for row in rows if row["number"] == number_of(job)]
    if not mine:
        return True
    if "endTime" not in mine[-1]:
        return False
    ended = parse_time(mine[-1]["endTime"])
    waits = mine[-1].get("outcome") in NOT_COUNTED and one.course.job is job and one.course.state in ACTIVE
    return waits or any(placed_at(pod) and _is_after(pod, ended, one.now) for pod in _pods(job, one))


def _brought_up(row: Raw, previous: Sequence[Raw], one: Account) -> Raw:
    """An open row as it is now; closed when its outcome is known and its pods have stopped."""
    job = next((job for job in one.course.jobs if number_of(job) == row["number"]), None)
    last = previous[-1] if previous and previous[-1]["number"] == row["number"] else None
    since = parse_time(last["endTime"]) if last else parse_time(metadata(job).get("creationTimestamp")) if job else None
    known, moved_on = parse_time(row.get("startTime")), _moved_on(row, job, one)
    pods = [pod for pod in _pods_of_row(row, job, one, moved_on) if not last or _is_after(pod, since, one.now)]
    start = known or min((at for pod in pods if (at := placed_at(pod))), default=None)
    outcome = row.get("outcome") or _outcome(row, job, start, moved_on, one)
    works = outcome != SUCCEEDED and any(may_work(pod, one.now) for pod in pods)  # of several pods one says so for all
    stopped = outcome is not None and not works
    end = _last_end(pods, job, moved_on, start, one) if stopped else None
    wait = ((start or end or one.now) - since).total_seconds() if since else row.get("queuedSeconds") or 0
    new = {
        **row,
        "startTime": format_time(start) if start else None,
        "outcome": outcome,
        "endTime": format_time(end) if end else None,
        "queuedSeconds": max(int(wait), 0),
        "acceleratorSeconds": _held(row, pods, start, end, one) if one.devices else None,
        "failures": row.get("failures") or (one.course.failures or None if outcome else None),
    }
    return {name: value for name, value in new.items() if value is not None}


def _moved_on(row: Raw, job: Raw | None, one: Account) -> datetime | None:
    """When the Job was admitted anew after the stay that a row tells of; None where it was not."""
    start, again = parse_time(row.get("startTime")), admitted(job) if job else None
    if not (job and start and again and again > start):
        return None
    return None if any(placed_at(pod) == start for pod in _pods(job, one)) else again


def _pods_of_row(row: Raw, job: Raw | None, one: Account, moved_on: datetime | None) -> list[Raw]:
    """The pods of a stay: all of its attempt, but those that came after its queue had stopped it."""
    pods = _pods(job, one) if job else _orphans(row["number"], one)
    goes_on = job is not None and not is_over(job) and not is_deleting(job)
    if goes_on and (moved_on or row.get("outcome") in NOT_COUNTED):
        pods = [pod for pod in pods if is_deleting(pod) or is_finished(pod)]
    return [pod for pod in pods if not moved_on or not (at := placed_at(pod)) or at < moved_on]


def _outcome(row: Raw, job: Raw | None, start: datetime | None, moved_on: datetime | None, one: Account) -> str | None:
    course = one.course
    if moved_on or (job and start and is_suspended(job) and not is_over(job) and course.state is State.QUEUED):
        return str(FailureClass.PREEMPTED)
    newest = course.job is not None and row["number"] == number_of(course.job)
    if newest and course.state is State.SUCCEEDED:
        return SUCCEEDED
    if newest and course.state is State.FAILED and course.trouble:
        return str(course.trouble.class_)
    if one.stopped and not (job and is_over(job)):
        return one.stopped
    return None if newest else str(FailureClass.PREEMPTED)


def _held(row: Raw, pods: Sequence[Raw], start: datetime | None, end: datetime | None, one: Account) -> int:
    """Devices times seconds. Of pods that went unseen it is known when the first came and what has been counted."""
    stays = [(_end(pod, one.now) or end or one.now) - at for pod in pods if (at := placed_at(pod))]
    seen = one.devices * sum(max(int(stay.total_seconds()), 0) for stay in stays)
    if len(stays) >= one.width:
        return seen
    gone = one.devices * one.width * int((end - start).total_seconds()) if start and end and not stays else 0
    return max(seen, gone, row.get("acceleratorSeconds") or 0)


def _last_end(
    pods: Sequence[Raw], job: Raw | None, moved_on: datetime | None, start: datetime | None, one: Account
) -> datetime:
    """When the last pod of a stay had stopped; for pods that went unseen, the earliest time that is known to be later."""
    ends = [end for pod in pods if (end := _end(pod, one.now))]
    if ends:
        return max(ends)
    held = parse_time(condition(job, "Suspended").get("lastTransitionTime")) if job and is_suspended(job) else None
    killed = held + timedelta(seconds=GRACE_SECONDS) if held and start and held > start else None
    bounds = (one.now, moved_on, over_since(job) if job else None, killed)
    return max(min(bound for bound in bounds if bound), start or EARLIEST)


def placed_at(pod: Raw) -> datetime | None:
    """When a pod got its node, and with it its devices."""
    scheduled = condition(pod, "PodScheduled") if is_true(pod, "PodScheduled") else {}
    status = pod.get("status") or {}
    return parse_time(scheduled.get("lastTransitionTime")) or parse_time(status.get("startTime"))


def _end(pod: Raw, now: datetime) -> datetime | None:
    """When a pod gave its devices back; None while it may hold them."""
    gone = parse_time(metadata(pod).get("deletionTimestamp"))
    if not is_finished(pod):
        return None if may_work(pod, now) else gone
    ends = [end for one in containers(pod) if (end := parse_time(one.terminated.get("finishedAt")))]
    return max(ends, default=None) or parse_time(condition(pod, "DisruptionTarget").get("lastTransitionTime")) or gone


def _is_after(pod: Raw, moment: datetime | None, now: datetime) -> bool:
    """Whether a pod is not of a stay that ended at `moment`."""
    at, end = placed_at(pod), _end(pod, now)
    return moment is None or ((at is None or at >= moment) and (end is None or end > moment))


def _pods(job: Raw, one: Account) -> list[Raw]:
    return [pod for pod in one.course.pods if _owner(pod) == name_of(job)]


def _orphans(number: int, one: Account) -> list[Raw]:
    """Pods of an attempt whose Job is gone."""
    return [pod for pod in one.course.pods if _owner(pod).endswith(f"-{number}")]


def _owner(pod: Raw) -> str:
    owners = metadata(pod).get("ownerReferences") or []
    return next((str(owner.get("name")) for owner in owners if owner.get("controller")), "")
