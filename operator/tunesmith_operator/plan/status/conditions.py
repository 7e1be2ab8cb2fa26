"""Conditions, set as by meta.SetStatusCondition of apimachinery.

- all kinds: Ready, Reconciling and Stalled, which kstatus reads. Ready: a job has succeeded, a service answers. It is absent
  while a resource is idle as its spec requests (suspended, no replicas)
- FineTuneJob, EvalJob: Succeeded; True or False at the end, Unknown before
- EvalJob: Passed, the verdict, once it is known
- InferenceService with spec.promotion: PromotionBlocked; Unknown while it waits for a verdict
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tunesmith_api.base import TEXT_CHARACTERS
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Raw


@dataclass(frozen=True)
class WantedCondition:
    """A condition to set; `status` None is Unknown."""

    type: str
    status: bool | None
    reason: str
    message: str


def set_conditions(
    old: Sequence[Mapping[str, object]], wanted: Sequence[WantedCondition], generation: int, now: datetime
) -> list[Raw]:
    """Return `wanted` as conditions, in that order. lastTransitionTime changes only with the status."""
    before = {condition.get("type"): condition for condition in old}
    return [_condition(before.get(want.type), want, generation, now) for want in wanted]


def _condition(old: Mapping[str, object] | None, want: WantedCondition, generation: int, now: datetime) -> Raw:
    status = "Unknown" if want.status is None else str(want.status)
    unchanged = old is not None and old.get("status") == status and old.get("lastTransitionTime")
    return {
        "type": want.type,
        "status": status,
        "reason": str(want.reason),
        "message": want.message[:TEXT_CHARACTERS],
        "lastTransitionTime": old["lastTransitionTime"] if old is not None and unchanged else format_time(now),
        "observedGeneration": generation,
    }


def kstatus_conditions(
    ready: bool | None, reconciling: bool, stalled: bool, reason: str, message: str
) -> tuple[WantedCondition, ...]:
    """Return the conditions that `kubectl wait`, Flux and Argo CD read.

    Reconciling: progress happens by itself. Stalled: none happens until somebody changes something. `ready` None omits Ready:
    kstatus then reports the resource as current, and a wait for Ready continues.
    """
    others = (
        WantedCondition("Reconciling", reconciling, reason, message if reconciling else ""),
        WantedCondition("Stalled", stalled, reason, message if stalled else ""),
    )
    return others if ready is None else (WantedCondition("Ready", ready, reason, message), *others)
