"""Why the API server rejected a child: quotas, LimitRanges, admission plugins, webhooks."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith_api.failures import FailureClass
from tunesmith_api.status import LastFailure
from tunesmith_operator.plan.failures import cluster_messages, namespace_limits
from tunesmith_operator.plan.failures.events import latest_event
from tunesmith_operator.plan.failures.hints import kind_of
from tunesmith_operator.plan.failures.last_failure import failure
from tunesmith_operator.plan.names import namespace_of
from tunesmith_operator.plan.pods.members import pod_count
from tunesmith_operator.plan.types import Raw


def rejection_failure(message: str, namespace: str, kind: str) -> LastFailure:
    """Return why the API server rejected a child of a resource of `kind`, from the message of its answer."""
    known = namespace_limits.interpret(message, namespace, kind) or cluster_messages.interpret(
        cluster_messages.ADMISSION, message, {"namespace": namespace}
    )
    class_ = known.class_ if known else None
    return failure(class_ or FailureClass.POD_REFUSED, message, known.hint if known else None, kind)


def pod_creation_failure(job: Raw, events: Sequence[Raw]) -> LastFailure | None:
    """Return why a Job has no pod. The Job controller reports it by Events only."""
    latest = latest_event(job, events, {"FailedCreate"})
    return rejection_failure(str(latest.get("message") or ""), namespace_of(job), kind_of(job)) if latest else None


def is_short_of_pods(job: Raw) -> bool:
    """Whether the Job controller has tried to create all pods of a Job and some are missing.

    It sets startTime in the same write as the counts of the pods that it created.
    """
    status = job.get("status") or {}
    counted = sum(int(status.get(name) or 0) for name in ("active", "terminating", "succeeded", "failed"))
    return bool(status.get("startTime")) and not status.get("uncountedTerminatedPods") and counted < pod_count(job)
