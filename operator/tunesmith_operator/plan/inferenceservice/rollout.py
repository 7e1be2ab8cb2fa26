"""How far a Deployment has rolled out a version, what keeps its pods from answering, and when the version is given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tunesmith_api.base import TEXT_CHARACTERS, parse_duration
from tunesmith_api.failures import SERVE, FailureClass
from tunesmith_api.inferenceservice import InferenceServiceSpec, RolledBack, RolloutStrategy
from tunesmith_api.status import LastFailure
from tunesmith_operator.plan.failures.hints import with_hint
from tunesmith_operator.plan.failures.pod_start import pending_failure
from tunesmith_operator.plan.failures.rejection import rejection_failure
from tunesmith_operator.plan.failures.termination import crash_failure, termination_failure
from tunesmith_operator.plan.inferenceservice.version_choice import Target, has_no_pods
from tunesmith_operator.plan.inferenceservice.versions import Versions, request_hash, version_of
from tunesmith_operator.plan.names import is_deleting, metadata, name_of
from tunesmith_operator.plan.pods.read import condition, containers, is_finished, is_true, phase
from tunesmith_operator.plan.requeue import seconds_until
from tunesmith_operator.plan.times import format_time, parse_time
from tunesmith_operator.plan.types import Observed, Raw

REPLACEMENT_DELAY = timedelta(minutes=1)
"""Time within which a ReplicaSet replaces a failed pod."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PERMANENT = frozenset(
    {FailureClass.BAD_MODEL, FailureClass.MODEL_NOT_FOUND, FailureClass.UNSAFE_WEIGHTS, FailureClass.BAD_SPEC}
)
"""Failures of the version itself: it never becomes ready."""
NO_CAPACITY = frozenset({FailureClass.UNSCHEDULABLE, FailureClass.QUOTA_EXCEEDED})
NO_CAUSE = "its pods are not ready, and no cause was found"
TIMEOUT_HINT = "read the log of container serve; if the model needs longer to load, raise spec.rollout.readyTimeout"
RECREATE_HINT = ", or set spec.rollout.strategy: Recreate, which asks for no second set of pods"


@dataclass(frozen=True)
class Rollout:
    """How far the Deployment has rolled out a version."""

    version: str | None
    desired: int
    total: int
    ready: int
    stopping: int
    """Pods that exist and that the Deployment no longer counts."""
    is_done: bool
    """All desired pods have this version and are ready."""
    timed_out: bool
    seconds_left: float | None
    """Until the version is late by the age of its pods; None if no pod has to become ready."""


def read_rollout(
    observed: Observed, template: Raw | None, spec: InferenceServiceSpec, is_drifted: bool, now: datetime
) -> Rollout:
    """How far the Deployment has rolled out `template`. `is_drifted`: this plan applies the Deployment."""
    deployment = observed.deployments[0] if observed.deployments else {}
    status, desired = deployment.get("status") or {}, 0 if has_no_pods(spec) else spec.replicas
    total, ready = int(status.get("replicas") or 0), int(status.get("readyReplicas") or 0)
    is_current = int(status.get("observedGeneration") or 0) >= int(metadata(deployment).get("generation") or 0)
    is_complete = total == ready == int(status.get("updatedReplicas") or 0) == desired
    version = version_of(template) if template else None
    left = None if is_drifted or is_complete else _seconds_left(observed, version, spec, now)
    is_late = condition(deployment, "Progressing").get("reason") == "ProgressDeadlineExceeded" or left == 0
    return Rollout(
        version=version,
        desired=desired,
        total=total,
        ready=ready,
        stopping=max(sum(not is_finished(pod) for pod in observed.pods) - total, 0),
        is_done=bool(deployment) and not is_drifted and is_current and is_complete,
        timed_out=not is_drifted and is_current and desired > 0 and is_late,
        seconds_left=left,
    )


def _seconds_left(observed: Observed, version: str | None, spec: InferenceServiceSpec, now: datetime) -> float | None:
    """Time left for the first pod of a version to become ready.

    The Deployment controller has no deadline for an old ReplicaSet that it scales up again, or for a scale-up from zero.
    """
    pods = [pod for pod in observed.pods if version_of(pod) == version and not is_finished(pod)]
    created = [moment for pod in pods if (moment := parse_time(metadata(pod).get("creationTimestamp")))]
    if not created or any(is_true(pod, "Ready") for pod in pods):
        return None
    return seconds_until(min(created) + timedelta(seconds=parse_duration(spec.rollout.ready_timeout)), now)


def find_trouble(observed: Observed, rollout: Rollout, namespace: str) -> LastFailure | None:
    """What keeps pods of the version from answering. A rejected child comes first."""
    if observed.refused:
        return rejection_failure(next(iter(sorted(observed.refused.values()))), namespace, SERVE)
    if rollout.is_done or not observed.deployments:
        return None
    replica_failure = condition(observed.deployments[0], "ReplicaFailure")
    if replica_failure.get("status") == "True":
        return rejection_failure(str(replica_failure.get("message") or ""), namespace, SERVE)
    pods = [pod for pod in sorted(observed.pods, key=name_of) if version_of(pod) == rollout.version]
    waiting = (pod for pod in pods if not is_finished(pod) and not is_true(pod, "Ready"))
    troubles = (pending_failure(pod, observed.events) or crash_failure(pod) for pod in waiting)
    return next((trouble for trouble in troubles if trouble), None) or _replaced_pod_failure(pods)


def _replaced_pod_failure(pods: Sequence[Raw]) -> LastFailure | None:
    """Why the pod failed that the newest pod replaces, for example by eviction.

    A failure long before the newest pod was created does not explain why that pod is not ready. A deleted pod is no failure.
    """
    failed = [(_failed_at(pod), pod) for pod in pods if phase(pod) == "Failed" and not is_deleting(pod)]
    if not failed:
        return None
    moment, pod = max(failed, key=lambda entry: entry[0])
    created = [_created_at(pod) for pod in pods if not is_finished(pod)]
    return termination_failure(pod) if not created or max(created) - moment <= REPLACEMENT_DELAY else None


def _failed_at(pod: Raw) -> datetime:
    ends = [parse_time(container.terminated.get("finishedAt")) for container in containers(pod)]
    known = (parse_time(condition(pod, "DisruptionTarget").get("lastTransitionTime")), *ends)
    return max((moment for moment in known if moment), default=_created_at(pod))


def _created_at(pod: Raw) -> datetime:
    return parse_time(metadata(pod).get("creationTimestamp")) or EPOCH


def rollback_record(
    spec: InferenceServiceSpec,
    target: Target,
    versions: Versions,
    rollout: Rollout,
    trouble: LastFailure | None,
    now: datetime,
) -> RolledBack | None:
    """The record of a version that is given up: not ready in time, or unable to start, with a version to roll back to.

    The rollback follows from the record in status, so that a kill between the two changes nothing.
    """
    has_failed = (rollout.timed_out or is_permanent(trouble)) and not rollout.is_done
    if not has_failed or target.given_up or target.template is None or rollout.version is None:
        return None
    if versions.last_ready is None or rollout.version == versions.served:
        return None
    return RolledBack(
        version=rollout.version,
        asked=request_hash(target.template, spec.rollout, spec.engine),
        time=format_time(now),
        message=why_late(spec, trouble)[:TEXT_CHARACTERS],
    )


def is_permanent(trouble: LastFailure | None) -> bool:
    """Whether a version with this trouble never becomes ready."""
    return trouble is not None and trouble.class_ in PERMANENT


def why_late(spec: InferenceServiceSpec, trouble: LastFailure | None) -> str:
    """Why a version is not ready in time, or never will be, with the hint."""
    if trouble is not None and is_permanent(trouble):
        return with_hint(trouble.message, trouble.hint)
    late = f"not ready within spec.rollout.readyTimeout ({spec.rollout.ready_timeout})"
    if trouble is None:
        return with_hint(f"{late}: {NO_CAUSE}", TIMEOUT_HINT)
    surge_lacks_capacity = spec.rollout.strategy is RolloutStrategy.SURGE and trouble.class_ in NO_CAPACITY
    return with_hint(f"{late}: {trouble.message}", f"{trouble.hint}{RECREATE_HINT if surge_lacks_capacity else ''}")
