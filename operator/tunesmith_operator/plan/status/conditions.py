"""Conditions, as meta.SetStatusCondition sets them.

- all kinds: Ready, Reconciling and Stalled, which kstatus reads. Ready: a job has succeeded, a service answers; it is
  left out of what is at rest as the spec asks (suspended, no replicas), which is neither ready nor on its way
- FineTuneJob, EvalJob: Succeeded; True or False at the end, Unknown before
- EvalJob: Passed, its verdict, when it is known
- InferenceService with spec.promotion: PromotionBlocked; Unknown while it waits for a verdict
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Raw

MESSAGE_LIMIT = 4096


@dataclass(frozen=True)
class Wanted:
    """What a condition should say; `status` None is Unknown."""

    type: str
    status: bool | None
    reason: str
    message: str


def set_conditions(
    old: Sequence[Mapping[str, object]], wanted: Sequence[Wanted], generation: int, now: datetime
) -> list[Raw]:
    """`wanted` as conditions, in that order; lastTransitionTime moves only when a status flips."""
    before = {condition.get("type"): condition for condition in old}
    return [_condition(before.get(want.type), want, generation, now) for want in wanted]


def _condition(old: Mapping[str, object] | None, want: Wanted, generation: int, now: datetime) -> Raw:
    status = "Unknown" if want.status is None else str(want.status)
    unchanged = old is not None and old.get("status") == status and old.get("lastTransitionTime")
    return {
        "type": want.type,
        "status": status,
        "reason": str(want.reason),
        "message": want.message[:MESSAGE_LIMIT],
        "lastTransitionTime": old["lastTransitionTime"] if old is not None and unchanged else format_time(now),
        "observedGeneration": generation,
    }


def kstatus(ready: bool | None, reconciling: bool, stalled: bool, reason: str, message: str) -> tuple[Wanted, ...]:
    """The conditions by which `kubectl wait`, Flux and Argo CD know how a resource is.

    Reconciling: on its way, by itself. Stalled: it will not get there unless somebody changes something. `ready` None
    leaves Ready out: kstatus then calls the resource current, and who waits for Ready goes on waiting.
    """
    others = (
        Wanted("Reconciling", reconciling, reason, message if reconciling else ""),
        Wanted("Stalled", stalled, reason, message if stalled else ""),
    )
    return others if ready is None else (Wanted("Ready", ready, reason, message), *others)
