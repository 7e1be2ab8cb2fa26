"""What goes into a plan and what comes out: plain data, so that a plan can be tested without a cluster.

`plan(resource, observed, now, config, token) -> Plan` is the same for every kind. Objects of the cluster are raw
dicts, as the API server sends them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from tunesmith_api.run import ProgressReport
from tunesmith_operator.plan.config import OperatorConfig

Raw = dict[str, Any]
"""An object of the cluster, or a part of one, as JSON-ready data."""

TokenFor = Callable[[str, str], str]
"""(uid of the resource, name of its Job) -> the bearer token for that Job's progress. Must be a pure function (HMAC)."""


class Key(NamedTuple):
    """A child object, in the namespace of its resource."""

    kind: str
    name: str


class Reference(NamedTuple):
    """A resource of ours that another one names; it is in the same namespace."""

    kind: str
    name: str


@dataclass(frozen=True)
class Progress:
    """The latest progress that a Job's pod pushed."""

    report: ProgressReport
    time: datetime
    """When it was received."""


@dataclass(frozen=True)
class Observed:
    """What is there: read live, complete, and true of one moment. A failed read makes no Observed."""

    jobs: tuple[Raw, ...] = ()
    pods: tuple[Raw, ...] = ()
    deployments: tuple[Raw, ...] = ()
    services: tuple[Raw, ...] = ()
    revisions: tuple[Raw, ...] = ()
    """ControllerRevisions: the versions of a service."""
    autoscalers: tuple[Raw, ...] = ()
    budgets: tuple[Raw, ...] = ()
    workloads: tuple[Raw, ...] = ()
    """Kueue's Workloads of the Jobs that wait in a queue, where the operator may read them."""
    events: tuple[Raw, ...] = ()
    """core/v1 Events about the children that `KindPlan.wants_events` named."""
    references: Mapping[Reference, Raw | None] = field(default_factory=dict)
    """Each of `KindPlan.references(resource)`; None where there is no such object."""
    ring: tuple[Reference, ...] = ()
    """The references that lead from the resource back to itself (see plan/spec/reference_cycles.py), the resource first and last."""
    progress: Mapping[str, Progress] = field(default_factory=dict)
    """By name of the Job."""
    foreign: frozenset[Key] = frozenset()
    """Objects that have a child's name and are not ours: their controller is not this resource (by uid)."""
    former: frozenset[Key] = frozenset()
    """Those of `foreign` that a deleted resource of the same kind and name has left, and that are about to go."""
    refused: Mapping[Key, str] = field(default_factory=dict)
    """Children that the API server refused (403, 422) when they were last tried, with its message."""


CHILDREN: Mapping[str, str] = {
    "Job": "jobs",
    "Pod": "pods",
    "Deployment": "deployments",
    "Service": "services",
    "ControllerRevision": "revisions",
    "HorizontalPodAutoscaler": "autoscalers",
    "PodDisruptionBudget": "budgets",
}
"""Kind of a child -> the field of Observed that has it."""


class EventType(StrEnum):
    """The two types of Event that kubectl knows."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True)
class Event:
    """An Event about the resource. It is sent right before the status of the same plan is written."""

    type: EventType
    reason: str
    message: str
    once: str | None = None
    """What is told of, where that is told once only, however often a kill or somebody's edit comes between the Event and
    the status. None: it is told once for each transition."""


@dataclass(frozen=True)
class Plan:
    """What to do, in this order: create, apply, events, status, delete. The empty plan is: all is well. What is not done is
    planned again.

    Events come before status, so that a kill between the two loses none: nothing tells of a transition once status has
    made it. Status comes before delete, so that what a child told is kept before the child goes.
    """

    create: tuple[Raw, ...] = ()
    """Jobs and ControllerRevisions, made once. AlreadyExists is success where the controller is ours; else plan again
    with it in `foreign`.
    Refused with 403 or 422: plan again with it in `refused`."""
    apply: tuple[Raw, ...] = ()
    """Manifests for server-side apply."""
    delete: tuple[Key, ...] = ()
    """Children to delete, with their pods (propagationPolicy Background). NotFound is success."""
    status: Raw | None = None
    """The whole status, which replaces the old one (no merge: what is not in it goes); None: leave it as it is."""
    events: tuple[Event, ...] = ()
    for_good: bool = False
    """Whether the status writes down what is not taken back: like a create, it must come of what was read live."""
    requeue_after: float | None = None
    """Seconds after which to plan again though nothing was heard of; None: at the next change only."""

    @property
    def acts(self) -> bool:
        """Whether it does more than say how things stand."""
        return bool(self.create or self.apply or self.delete or self.for_good)

    @property
    def is_empty(self) -> bool:
        """Whether it asks for no write at all."""
        return not (self.create or self.apply or self.delete or self.events or self.status is not None)


class PlanFunction(Protocol):
    """A kind's behaviour."""

    def __call__(
        self, resource: Raw, observed: Observed, now: datetime, config: OperatorConfig, token: TokenFor
    ) -> Plan: ...


@dataclass(frozen=True)
class KindPlan:
    """What the shell must know of a kind. `tunesmith_operator.plan.KINDS` has one for each."""

    kind: str
    plural: str
    lists: tuple[str, ...]
    """Kinds of children (Job, Pod, ControllerRevision) to list by the label `tunesmith.dev/uid=<uid of the resource>`."""
    gets: Callable[[Raw], frozenset[Key]]
    """Children of a fixed name, to be read by name whatever their labels: what is not ours belongs in `foreign`."""
    references: Callable[[Raw], frozenset[Reference]]
    """The resources that this one names; a change of one of them must plan this one anew."""
    wants_events: Callable[[Raw, Observed, datetime], frozenset[Key]]
    """Children whose Events would tell more than the children do; empty most of the time. If not, read the Events
    (involvedObject kind and name) and plan with them in `observed.events`."""
    plan: PlanFunction
