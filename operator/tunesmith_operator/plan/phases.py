"""Values of `status.phase`, and the reasons of a status without failure. With a failure its class is the reason."""

from __future__ import annotations

from enum import StrEnum

from tunesmith_operator.plan.types import Raw


class Phase(StrEnum):
    """Phase of a resource. Jobs have all but the last four."""

    WAITING = "Waiting"
    """A resource that it names does not exist, is not ready, or has no verdict yet (see waitingFor)."""
    QUEUED = "Queued"
    """A queue has not admitted it yet."""
    PENDING = "Pending"
    """Its pods exist but have not started, or a retry waits for its backoff (see lastFailure)."""
    PREPARING = "Preparing"
    """It checks the store for finished work before it requests devices, or fetches the model and the data."""
    RUNNING = "Running"
    """It trains, exports or evaluates (see progress.stage)."""
    SUSPENDED = "Suspended"
    """spec.suspend: no pods; checkpoints stay."""
    SUCCEEDED = "Succeeded"
    """Finished. Final."""
    FAILED = "Failed"
    """Failed (see lastFailure). Final, unless this operator refuses the spec: a later version may accept it."""
    ROLLING_OUT = "RollingOut"
    """InferenceService: a new version starts while the old one answers."""
    BLOCKED = "Blocked"
    """InferenceService: the model has not passed spec.promotion; an older version keeps answering."""
    ROLLED_BACK = "RolledBack"
    """InferenceService: the new version was not ready in time; the last ready version has replaced it."""
    READY = "Ready"
    """InferenceService: all pods of the version of the spec answer."""


class Reason(StrEnum):
    """Reason of a phase without failure."""

    WAITING_FOR_MODEL = "WaitingForModel"
    WAITING_FOR_VERDICT = "WaitingForVerdict"
    QUEUED = "Queued"
    WAITING_FOR_POD = "WaitingForPod"
    STOPPING = "Stopping"
    BACK_OFF = "BackOff"
    PREPARING = "Preparing"
    FETCHING = "Fetching"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETED = "Completed"
    ADOPTED_EXISTING = "AdoptedExisting"
    GATES_FAILED = "GatesFailed"
    GATES_PASSED = "GatesPassed"
    STARTING = "Starting"
    ROLLING_OUT = "RollingOut"
    ROLLOUT_TIMEOUT = "RolloutTimeout"
    ROLLED_BACK = "RolledBack"
    PROMOTION_BLOCKED = "PromotionBlocked"
    PROMOTED = "Promoted"
    SCALED_TO_ZERO = "ScaledToZero"
    SERVING = "Serving"


FINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED})


def is_final(resource: Raw) -> bool:
    """Whether a resource has ended for good. A refused spec has not: a change of the operator's configuration may allow it."""
    status = resource.get("status") or {}
    return status.get("phase") in FINAL and bool(status.get("completionTime"))
