"""Jobs in a queue: Kueue's labels on them, and the reason that Kueue gives for their wait.

A Job with the label of a LocalQueue is created suspended. From then on Kueue owns `spec.suspend`: it admits the Job by
setting it to false, and takes the admission back by setting it to true. (https://kueue.sigs.k8s.io/docs/tasks/run/jobs)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tunesmith_operator.plan.jobs.read import is_over, is_suspended
from tunesmith_operator.plan.names import label, name_of, uid_of
from tunesmith_operator.plan.pods.read import condition, is_true
from tunesmith_operator.plan.types import Raw

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
"""On a Workload: the uid of its Job."""


def is_queued(job: Raw) -> bool:
    """Whether a Job that has not ended is Queued. Without a queue it waits for whoever suspended it."""
    return is_suspended(job)


def queued_jobs(jobs: Iterable[Raw]) -> list[Raw]:
    """Jobs that a queue has not admitted."""
    return [job for job in jobs if is_queued(job) and label(job, QUEUE_LABEL) and not is_over(job)]


def has_reported(job: Raw, workloads: Sequence[Raw]) -> bool:
    """Whether Kueue has given a reason for a Job's wait. A Workload as read from a cache may be older than its Job."""
    return bool(_reason(_workload(job, workloads)))


def queue_reason(job: Raw, workloads: Sequence[Raw], problem: str = "") -> str:
    """What a suspended Job waits for, with Kueue's reason if it is known. `problem`: why Workloads cannot be read."""
    queue = label(job, QUEUE_LABEL)
    if not queue:
        return f"somebody to set spec.suspend of Job {name_of(job)} to false: it belongs to no queue"
    reason = _reason(_workload(job, workloads))
    unknown = f" (the reason is unknown: {problem})" if problem else ""
    return f"LocalQueue {queue}: {reason}" if reason else f"LocalQueue {queue} to admit it{unknown}"


def _workload(job: Raw, workloads: Sequence[Raw]) -> Raw:
    return next((workload for workload in workloads if label(workload, JOB_UID_LABEL) == uid_of(job)), {})


def _reason(workload: Raw) -> str:
    """Why a Workload was evicted and why it is not admitted, by its conditions and admission checks."""
    reasons = _open_checks(workload) if is_true(workload, "QuotaReserved") else _quota_reasons(workload)
    if (workload.get("spec") or {}).get("active") is False:
        reasons.append("it is deactivated: set spec.active of its Workload to true")
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


def _open_checks(workload: Raw) -> list[str]:
    checks = (workload.get("status") or {}).get("admissionChecks") or []
    names = [
        f"{check.get('name')} ({check.get('message') or check.get('state')})"
        for check in checks
        if check.get("state") != "Ready"
    ]
    return [f"its quota is reserved; admission checks to pass: {', '.join(names)}"] if names else []


def _quota_reasons(workload: Raw) -> list[str]:
    evicted = condition(workload, "Evicted") if is_true(workload, "Evicted") else {}
    reserved = condition(workload, "QuotaReserved")
    return [str(evicted.get("message") or ""), str(reserved.get("message") or "")]
