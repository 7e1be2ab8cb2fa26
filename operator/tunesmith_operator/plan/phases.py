"""The words of `status.phase` and of our own reasons. A failure's reason is its class (tunesmith_api.failures)."""

from __future__ import annotations

from enum import StrEnum

from tunesmith_operator.plan.types import Raw


class Phase(StrEnum):
    """Where a resource stands. Jobs: all but the last four; InferenceServices: see each."""

    WAITING = "Waiting"
    """Another resource that it names is not there, not ready, or has no verdict yet (see waitingFor)."""
    QUEUED = "Queued"
    """A queue has not admitted it yet."""
    PENDING = "Pending"
    """Its pods are made but none has started, or a new attempt waits for its time (see lastFailure)."""
    PREPARING = "Preparing"
    """Looks what is in the store before it asks for devices; or fetches the model and the data."""
    RUNNING = "Running"
    """Trains, exports or evaluates (see progress.stage)."""
    SUSPENDED = "Suspended"
    """spec.suspend: no pods; what was saved stays."""
    SUCCEEDED = "Succeeded"
    """Finished; final."""
    FAILED = "Failed"
    """It will not go on as it is (see lastFailure). Final, but for a spec that this operator refuses."""
    ROLLING_OUT = "RollingOut"
    """InferenceService: an older version answers, or answered, while the new one comes up."""
    BLOCKED = "Blocked"
    """InferenceService: the model has not passed what spec.promotion asks for; an older version goes on answering."""
    ROLLED_BACK = "RolledBack"
    """InferenceService: the new version was not ready in time; the last one that was ready is back in its place."""
    READY = "Ready"
    """InferenceService: the version that the spec asks for answers on all its pods."""


class Reason(StrEnum):
    """Why, in one word, where it is no failure."""

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
