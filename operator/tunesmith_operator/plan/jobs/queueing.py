"""Jobs that wait in a queue: Kueue's labels on them, and what Kueue has to say of them.

A Job with the label of a LocalQueue is made suspended. From then on `spec.suspend` is Kueue's: it admits the Job by
setting it to false, and takes the admission back by setting it to true. (https://kueue.sigs.k8s.io/docs/tasks/run/jobs)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tunesmith_operator.plan.jobs.attempts import is_over, is_suspended
from tunesmith_operator.plan.names import label, name_of, uid_of
from tunesmith_operator.plan.pods.read import condition, is_true
from tunesmith_operator.plan.types import Raw

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
"""On a Workload: the uid of the Job that it stands for."""


def waiting_jobs(jobs: Iterable[Raw]) -> list[Raw]:
    """Jobs that a queue holds back now."""
    return [job for job in jobs if is_suspended(job) and label(job, QUEUE_LABEL) and not is_over(job)]


def has_a_word(job: Raw, workloads: Sequence[Raw]) -> bool:
    """Whether Kueue has said something of a Job."""
    workload = _workload(job, workloads)
    return bool(condition(workload, "QuotaReserved").get("message"))


def what_it_waits_for(job: Raw, workloads: Sequence[Raw], problem: str = "") -> str:
    """What a suspended Job waits for, with Kueue's reason if it is known; `problem`: why Workloads cannot be read."""
    queue = label(job, QUEUE_LABEL)
    if not queue:
        return f"somebody to set spec.suspend of Job {name_of(job)} to false: it belongs to no queue"
    said = _said(_workload(job, workloads))
    unknown = f" (the reason is unknown: {problem})" if problem else ""
    return f"LocalQueue {queue}: {said}" if said else f"LocalQueue {queue} to admit it{unknown}"


def _workload(job: Raw, workloads: Sequence[Raw]) -> Raw:
    return next((one for one in workloads if label(one, JOB_UID_LABEL) == uid_of(job)), {})


def _said(workload: Raw) -> str:
    """Why a Workload was put back and why it is not admitted, by its conditions and admission checks."""
    evicted = condition(workload, "Evicted") if is_true(workload, "Evicted") else {}
    reserved = condition(workload, "QuotaReserved")
    checks = (workload.get("status") or {}).get("admissionChecks") or []
    pending = [
        f"{one.get('name')} ({one.get('message') or one.get('state')})" for one in checks if one.get("state") != "Ready"
    ]
    if reserved.get("status") == "True":
        said = [f"its quota is reserved; admission checks to pass: {', '.join(pending)}" if pending else ""]
    else:
        said = [str(evicted.get("message") or ""), str(reserved.get("message") or "")]
    if (workload.get("spec") or {}).get("active") is False:
        said.append("it is deactivated: set spec.active of its Workload to true")
    return "; ".join(dict.fromkeys(one for one in said if one))
