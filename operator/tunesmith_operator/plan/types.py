"""Input and output of a plan: plain data, so that plans are tested without a cluster.

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
    """One of our resources that another one names, in the same namespace."""

    kind: str
    name: str


@dataclass(frozen=True)
class Progress:
    """The latest progress that a Job's pod pushed."""

    report: ProgressReport
    time: datetime
    """When the operator received it."""


@dataclass(frozen=True)
class Observed:
    """The children, references and reports of one resource.

    A plan from the cache: children come from watch events and may be stale. That is good enough for a status, which
    is written only to the resourceVersion of the resource that it was planned from.
    A plan that acts (`Plan.acts`): never carried out from the cache. The resource and its children are read live and the
    plan is made again.

    In both cases reads that fail raise, so that no plan rests on half a picture. The reads are not atomic. A child that
    `status.children` names, or that the Job controller has counted, is read by itself before it counts as absent.
    """

    jobs: tuple[Raw, ...] = ()
    pods: tuple[Raw, ...] = ()
    deployments: tuple[Raw, ...] = ()
    services: tuple[Raw, ...] = ()
    revisions: tuple[Raw, ...] = ()
    """ControllerRevisions: the versions of a service."""
    autoscalers: tuple[Raw, ...] = ()
    budgets: tuple[Raw, ...] = ()
    workloads: tuple[Raw, ...] = ()
    """Kueue's Workloads of the Jobs that wait in a queue."""
    workloads_problem: str = ""
    """Why Workloads cannot be read, if so."""
    events: tuple[Raw, ...] = ()
    """core/v1 Events about the children that `KindPlan.wants_events` names."""
    references: Mapping[Reference, Raw | None] = field(default_factory=dict)
    """Each of `KindPlan.references(resource)`; None if it does not exist."""
    cycle: tuple[Reference, ...] = ()
    """The cycle of references through the resource (plan/spec/reference_cycles.py), with the resource first and last."""
    progress: Mapping[str, Progress] = field(default_factory=dict)
    """By name of the Job."""
    foreign: frozenset[Key] = frozenset()
    """Names of children that objects of another controller (by uid) have taken."""
    former: frozenset[Key] = frozenset()
    """Those of `foreign` whose controller was a deleted resource of the same kind and name: they will be collected."""
    refused: Mapping[Key, str] = field(default_factory=dict)
    """Children that the API server has rejected (403, 422) in this reconcile, with its message."""


CHILDREN: Mapping[str, str] = {
    "Job": "jobs",
    "Pod": "pods",
    "Deployment": "deployments",
    "Service": "services",
    "ControllerRevision": "revisions",
    "HorizontalPodAutoscaler": "autoscalers",
    "PodDisruptionBudget": "budgets",
}
"""Kind of a child -> its field of Observed."""


class EventType(StrEnum):
    """The types of core/v1 Events."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True)
class Event:
    """An Event about the resource, sent right before the status of the same plan is written."""

    type: EventType
    reason: str
    message: str
    once: str | None = None
    """Identifies the occurrence, so that it is reported once even if a kill or an edit comes between Event and status.
    None: the Event is identified by the status that it leads away from."""


@dataclass(frozen=True)
class Plan:
    """Writes, in this order: create, apply, events, status, delete. A write that fails is planned again.

    Events precede status: a kill between the two loses none, as nothing reports a transition that the status already
    shows. Status precedes delete: what a child has reported is in the status before the child goes.
    """

    create: tuple[Raw, ...] = ()
    """Jobs and ControllerRevisions, which are never changed. AlreadyExists is success if the resource is their controller;
    otherwise the plan is made again with them in `foreign`. After 403 or 422 it is made again with them in `refused`."""
    apply: tuple[Raw, ...] = ()
    """Manifests for server-side apply."""
    delete: tuple[Key, ...] = ()
    """Children to delete, with their pods (propagationPolicy Background). NotFound is success."""
    status: Raw | None = None
    """The whole status, which replaces the old one; None: leave it unchanged."""
    events: tuple[Event, ...] = ()
    for_good: bool = False
    """Whether the status records a decision that is never revised: like a create, it must rest on live reads."""
    requeue_after: float | None = None
    """Seconds until the next plan if no event comes before; None: plan at the next event."""

    @property
    def acts(self) -> bool:
        """Whether the plan must be made from live reads: it does more than update the status."""
        return bool(self.create or self.apply or self.delete or self.for_good)

    @property
    def is_empty(self) -> bool:
        """Whether the plan has no writes."""
        return not (self.create or self.apply or self.delete or self.events or self.status is not None)


class PlanFunction(Protocol):
    """The behaviour of a kind."""

    def __call__(
        self, resource: Raw, observed: Observed, now: datetime, config: OperatorConfig, token: TokenFor
    ) -> Plan: ...


@dataclass(frozen=True)
class KindPlan:
    """A kind, as the controller needs it. `tunesmith_operator.plan.KINDS` has one for each."""

    kind: str
    lists: tuple[str, ...]
    """Kinds of children to list by the label `tunesmith.dev/uid=<uid of the resource>`."""
    gets: Callable[[Raw], frozenset[Key]]
    """Children with fixed names, to be read by name whatever their labels: an object of another controller is `foreign`."""
    references: Callable[[Raw], frozenset[Reference]]
    """The resources that this one names; a change to one of them wakes this one."""
    wants_events: Callable[[Raw, Observed, datetime], frozenset[Key]]
    """Children whose Events (by involvedObject) the plan needs in `observed.events`; none most of the time."""
    plan: PlanFunction
