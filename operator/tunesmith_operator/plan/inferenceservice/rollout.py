"""How far a Deployment is with a version, and what keeps its pods from answering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tunesmith_api.base import parse_duration
from tunesmith_api.common import LastFailure
from tunesmith_api.failures import SERVE, FailureClass
from tunesmith_api.inferenceservice import InferenceServiceSpec, RolledBack, RolloutStrategy
from tunesmith_operator.plan.failures.last_failure import with_hint
from tunesmith_operator.plan.failures.pod_start import pending_failure
from tunesmith_operator.plan.failures.rejection import rejection_failure
from tunesmith_operator.plan.failures.termination import crash_failure, termination_failure
from tunesmith_operator.plan.inferenceservice.target import Target, no_pods
from tunesmith_operator.plan.inferenceservice.versions import Versions, version_of, what_asks
from tunesmith_operator.plan.names import is_deleting, metadata, name_of
from tunesmith_operator.plan.pods.read import condition, containers, is_finished, is_true, phase
from tunesmith_operator.plan.requeue import seconds_until
from tunesmith_operator.plan.times import format_time, parse_time
from tunesmith_operator.plan.types import Observed, Raw

REPLACED_WITHIN = timedelta(minutes=1)
"""So soon a ReplicaSet makes a pod in the place of one that has failed."""
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
PERMANENT = frozenset(
    {FailureClass.BAD_MODEL, FailureClass.MODEL_NOT_FOUND, FailureClass.UNSAFE_WEIGHTS, FailureClass.BAD_SPEC}
)
"""Failures of the version itself: it never becomes ready, however long the operator waits."""
NO_ROOM = frozenset({FailureClass.UNSCHEDULABLE, FailureClass.QUOTA_EXCEEDED})
NO_CAUSE = "its pods do not answer, and nothing says why"
LONGER = "read the log of container serve; if the model needs longer to load, raise spec.rollout.readyTimeout"
MESSAGE_LIMIT = 4096


@dataclass(frozen=True)
class Rollout:
    """How far the Deployment is with a version."""

    version: str | None
    wanted: int
    total: int
    ready: int
    stopping: int
    """Pods that are there and that the Deployment does not count any more."""
    is_done: bool
    """All wanted pods are of this version and can answer."""
    timed_out: bool
    seconds_left: float | None
    """Until it is late by the age of its pods; None where nobody waits for any."""


def measure(
    observed: Observed, template: Raw | None, spec: InferenceServiceSpec, drifted: bool, now: datetime
) -> Rollout:
    """How far the Deployment is with `template`; `drifted`: it is still to be made so."""
    there = observed.deployments[0] if observed.deployments else {}
    status, wanted = there.get("status") or {}, 0 if no_pods(spec) else spec.replicas
    total, ready = int(status.get("replicas") or 0), int(status.get("readyReplicas") or 0)
    current = int(status.get("observedGeneration") or 0) >= int(metadata(there).get("generation") or 0)
    complete = total == ready == int(status.get("updatedReplicas") or 0) == wanted
    version = version_of(template) if template else None
    left = None if drifted or complete else _seconds_left(observed, version, spec, now)
    late = condition(there, "Progressing").get("reason") == "ProgressDeadlineExceeded" or left == 0
    return Rollout(
        version=version,
        wanted=wanted,
        total=total,
        ready=ready,
        stopping=max(sum(not is_finished(pod) for pod in observed.pods) - total, 0),
        is_done=bool(there) and not drifted and current and complete,
        timed_out=not drifted and current and wanted > 0 and late,
        seconds_left=left,
    )


def _seconds_left(observed: Observed, version: str | None, spec: InferenceServiceSpec, now: datetime) -> float | None:
    """Time that is left for the first pod of a version to get ready.

    The Deployment controller counts none where a set of pods that it has kept comes back, nor from zero pods.
    """
    pods = [pod for pod in observed.pods if version_of(pod) == version and not is_finished(pod)]
    made = [moment for pod in pods if (moment := parse_time(metadata(pod).get("creationTimestamp")))]
    if not made or any(is_true(pod, "Ready") for pod in pods):
        return None
    return seconds_until(min(made) + timedelta(seconds=parse_duration(spec.rollout.ready_timeout)), now)


def find_trouble(observed: Observed, rollout: Rollout, namespace: str) -> LastFailure | None:
    """What keeps pods of the version from answering; a child that was refused comes first."""
    if observed.refused:
        return rejection_failure(next(iter(sorted(observed.refused.values()))), namespace, SERVE)
    if rollout.is_done or not observed.deployments:
        return None
    failed = condition(observed.deployments[0], "ReplicaFailure")
    if failed.get("status") == "True":
        return rejection_failure(str(failed.get("message") or ""), namespace, SERVE)
    mine = [pod for pod in sorted(observed.pods, key=name_of) if version_of(pod) == rollout.version]
    for pod in mine:
        if not is_finished(pod) and not is_true(pod, "Ready"):
            trouble = pending_failure(pod, observed.events) or crash_failure(pod)
            if trouble:
                return trouble
    return _why_replaced(mine)


def _why_replaced(pods: Sequence[Raw]) -> LastFailure | None:
    """Why the pod failed in whose place the newest one is: evicted, or not admitted, again and again it may be.

    A failure of long ago says nothing of pods that were made since, and who deletes a pod means it.
    """
    ended = [(_failed_at(pod), pod) for pod in pods if phase(pod) == "Failed" and not is_deleting(pod)]
    if not ended:
        return None
    moment, pod = max(ended, key=lambda one: one[0])
    made = [_created(one) for one in pods if not is_finished(one)]
    return termination_failure(pod) if not made or max(made) - moment <= REPLACED_WITHIN else None


def _failed_at(pod: Raw) -> datetime:
    ends = [parse_time(one.terminated.get("finishedAt")) for one in containers(pod)]
    known = (parse_time(condition(pod, "DisruptionTarget").get("lastTransitionTime")), *ends)
    return max((moment for moment in known if moment), default=_created(pod))


def _created(pod: Raw) -> datetime:
    return parse_time(metadata(pod).get("creationTimestamp")) or LONG_AGO


def give_up(
    spec: InferenceServiceSpec,
    target: Target,
    versions: Versions,
    rollout: Rollout,
    trouble: LastFailure | None,
    now: datetime,
) -> RolledBack | None:
    """The record of a version that was not ready in time, or never will be, and has one before it to go back to.

    It is written before the roll-back, which follows from it: a kill between the two costs nothing.
    """
    if (
        not (rollout.timed_out or is_permanent(trouble))
        or rollout.is_done
        or target.given_up
        or target.template is None
        or rollout.version is None
    ):
        return None
    if versions.last_ready() is None or rollout.version == versions.served:
        return None
    return RolledBack(
        version=rollout.version,
        asked=what_asks(target.template, spec.rollout, spec.engine),
        time=format_time(now),
        message=why_late(spec, trouble)[:MESSAGE_LIMIT],
    )


def is_permanent(trouble: LastFailure | None) -> bool:
    """Whether a version with this trouble never gets ready."""
    return trouble is not None and trouble.class_ in PERMANENT


def why_late(spec: InferenceServiceSpec, trouble: LastFailure | None) -> str:
    """Why a version is not ready in time, or never will be, and what to change."""
    if trouble is not None and is_permanent(trouble):
        return with_hint(trouble.message, trouble.hint)
    late = f"not ready within spec.rollout.readyTimeout ({spec.rollout.ready_timeout})"
    if trouble is None:
        return with_hint(f"{late}: {NO_CAUSE}", LONGER)
    surging = spec.rollout.strategy is RolloutStrategy.SURGE and trouble.class_ in NO_ROOM
    room = ", or set spec.rollout.strategy: Recreate, which asks for no second set of pods" if surging else ""
    return with_hint(f"{late}: {trouble.message}", f"{trouble.hint}{room}")
