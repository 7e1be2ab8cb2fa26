"""From an outlook to a plan: the status write, its conditions, and the Events of what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tunesmith_api.failures import FailureClass
from tunesmith_api.status import LastFailure
from tunesmith_operator.plan.failures.hints import with_hint
from tunesmith_operator.plan.failures.last_failure import PENDING_CLASSES, failure
from tunesmith_operator.plan.names import key_of, metadata
from tunesmith_operator.plan.phases import Phase, Reason
from tunesmith_operator.plan.requeue import CONFLICT_INTERVAL, LEFTOVER_INTERVAL
from tunesmith_operator.plan.status.conditions import WantedCondition, kstatus_conditions, set_conditions
from tunesmith_operator.plan.status.sanitize import sanitize
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import CHILDREN, Event, EventType, Key, Observed, Plan, Raw

AT_REST = frozenset({Reason.SUSPENDED, Reason.SCALED_TO_ZERO})
"""Reasons of a resource without pods as its spec requests."""
WITHOUT_EVENT = frozenset({Phase.PREPARING})
"""Phases without an Event, so that a successful job has three: Pending, Running, Succeeded."""
WITH_OWN_EVENT = frozenset({Phase.ROLLED_BACK})
"""Phases with an Event of their own even if the failure that caused them has an Event too."""


@dataclass(frozen=True)
class Outlook:
    """The result of planning a resource: what to do, and the status that describes it."""

    phase: Phase
    reason: str
    message: str
    ready: bool = False
    reconciling: bool = False
    stalled: bool = False
    waiting_for: str | None = None
    trouble: LastFailure | None = None
    fields: Raw = field(default_factory=dict)
    """The kind's own fields of status; None removes a field."""
    conditions: tuple[WantedCondition, ...] = ()
    """The kind's own conditions, after Ready, Reconciling and Stalled."""
    create: tuple[Raw, ...] = ()
    apply: tuple[Raw, ...] = ()
    delete: tuple[Key, ...] = ()
    for_good: bool = False
    """As in a Plan."""
    requeue_after: float | None = None


def plan_from_outlook(resource: Raw, observed: Observed, outlook: Outlook, now: datetime) -> Plan:
    """Return the plan of `outlook`: status only if it changed, Events only on transitions."""
    old = resource.get("status") or {}
    new = _status(resource, observed, outlook, now)
    return Plan(
        create=outlook.create,
        apply=outlook.apply,
        delete=outlook.delete,
        status=None if new == old else new,
        events=_events(old, new),
        for_good=outlook.for_good,
        requeue_after=None if outlook.requeue_after is None else max(outlook.requeue_after, 1.0),
    )


def _status(resource: Raw, observed: Observed, outlook: Outlook, now: datetime) -> Raw:
    old = resource.get("status") or {}
    generation = int(metadata(resource).get("generation") or 0)
    ready = None if outlook.reason in AT_REST and not outlook.reconciling else outlook.ready
    wanted = (
        *kstatus_conditions(ready, outlook.reconciling, outlook.stalled, outlook.reason, outlook.message),
        *outlook.conditions,
    )
    new: Raw = {
        **old,
        "phase": str(outlook.phase),
        "reason": str(outlook.reason),
        "message": outlook.message[:8192],
        "observedGeneration": generation,
        "conditions": set_conditions(old.get("conditions") or [], wanted, generation, now),
        "waitingFor": outlook.waiting_for[:2048] if outlook.waiting_for else None,
        "children": _children(observed, outlook),
        "lastFailure": _last_failure(old.get("lastFailure"), outlook.trouble, now),
        **outlook.fields,
    }
    return sanitize(resource["kind"], new)


def _children(observed: Observed, outlook: Outlook) -> list[Raw]:
    kinds = {kind: field for kind, field in CHILDREN.items() if kind != "Pod"}
    existing = {key_of(child, kind) for kind, field in kinds.items() for child in getattr(observed, field)}
    written = {key_of(manifest, manifest["kind"]) for manifest in (*outlook.create, *outlook.apply)}
    kept = (existing | written) - set(outlook.delete)
    return [{"kind": key.kind, "name": key.name} for key in sorted(kept)][:64]


def _last_failure(old: Raw | None, trouble: LastFailure | None, now: datetime) -> Raw | None:
    """Return the current failure, else the previous one unless it only kept a pod from starting and is over."""
    if trouble is None:
        return None if old and _is_over(old) else old
    new = trouble.to_dict()
    if "time" not in new:
        same = old is not None and all(old.get(name) == new.get(name) for name in ("class", "pod", "container"))
        new["time"] = (old or {}).get("time") if same else None
        new["time"] = new["time"] or format_time(now)
    return new


def _is_over(trouble: Raw) -> bool:
    """Whether a failure is over once it is not observed: it concerns a spec, a name or a start, not the run of a pod."""
    refused = trouble.get("class") == FailureClass.BAD_SPEC and "pod" not in trouble
    return refused or trouble.get("class") in PENDING_CLASSES | {FailureClass.NAME_CONFLICT}


def _events(old: Raw, new: Raw) -> tuple[Event, ...]:
    """Return the Events of a change of status: one for a new failure, one for a new phase or reason."""
    failure, before = new.get("lastFailure"), old.get("lastFailure") or {}
    events: list[Event] = []
    if failure and any(failure.get(name) != before.get(name) for name in ("class", "pod", "container")):
        text = with_hint(failure["message"], failure.get("hint") or "")
        ended = None if _is_over(failure) else f"{failure.get('pod')}/{failure.get('container')} {failure['message']}"
        events.append(Event(EventType.WARNING, failure["class"], text[:1024], once=ended))
    moved = (new["phase"], new["reason"]) != (old.get("phase"), old.get("reason"))
    if moved and (not events or new["phase"] in WITH_OWN_EVENT) and new["phase"] not in WITHOUT_EVENT:
        bad = any((condition["type"], condition["status"]) == ("Stalled", "True") for condition in new["conditions"])
        events.append(Event(EventType.WARNING if bad else EventType.NORMAL, new["reason"], new["message"][:1024]))
    return tuple(events)


def name_conflict(resource: Raw, names: Sequence[Key], former: frozenset[Key]) -> Outlook:
    """Return the outlook if other objects have the names of children: leftovers of a deleted resource, or foreign ones."""
    objects = ", ".join(f"{key.kind} {key.name}" for key in names)
    if former.issuperset(names):
        text = f"{objects} of the deleted {resource['kind']} of this name to be removed"
        return Outlook(
            Phase.WAITING,
            Reason.STOPPING,
            f"waiting for {text}",
            reconciling=True,
            waiting_for=text,
            requeue_after=LEFTOVER_INTERVAL,
        )
    exist = "exists and does" if len(names) == 1 else "exist and do"
    message = f"{objects} {exist} not belong to this resource"
    trouble = failure(FailureClass.NAME_CONFLICT, message, kind=resource["kind"])
    reason = str(trouble.class_)
    return Outlook(
        Phase.FAILED, reason, with_hint(trouble.message, trouble.hint), stalled=True, trouble=trouble,
        requeue_after=CONFLICT_INTERVAL,
    )  # fmt: skip
