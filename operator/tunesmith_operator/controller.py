"""From watch events to writes: which resources to reconcile, when, and the reconcile of one resource.

A plan is made from the cache first. The cache may be stale, which is good enough for a status: the API server accepts a
status only for the resourceVersion that it was planned from. A plan that acts (see `Plan.acts`) is never carried out as
such: it is made again from live reads.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tunesmith_operator import metrics
from tunesmith_operator.children import ChildCache
from tunesmith_operator.client import ApiError, Client
from tunesmith_operator.events import send_events
from tunesmith_operator.execute import delete_children, make_children
from tunesmith_operator.fleet import Fleet
from tunesmith_operator.log import about
from tunesmith_operator.observe import child_uids, observe, observe_events
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.names import has_no_status, is_deleting, uid_of
from tunesmith_operator.plan.types import KindPlan, Observed, Plan, Raw, TokenFor
from tunesmith_operator.progress_receiver import ProgressReports
from tunesmith_operator.queue import WorkQueue
from tunesmith_operator.resources import ResourceKey, Resources, is_settled, key_of, owner_of
from tunesmith_operator.workloads import WorkloadReader

RESYNC_SECONDS = 600.0
GAP_RESYNC_SECONDS = 10.0
"""Every resource is reconciled within this time after a watch stream has been interrupted."""
COALESCE_SECONDS = 0.2
"""Delay after a child's event: a pod is created, counted and scheduled within a moment, and one reconcile serves all."""
DEFERRED_STATUS_SECONDS = 5.0
"""Maximum delay before a new job's deferred first status is written."""
MAX_PLANS = 4
"""Plans of one reconcile. Each further plan takes the obstacles of the last into account: a taken name, a refusal."""

ESSENTIAL_STATUS_FIELDS = frozenset(
    {"phase", "reason", "message", "conditions", "observedGeneration", "attempt", "failures"}
)
"""Fields that are written of a status that the API server rejects without naming a field."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """A controller's configuration, fixed for the life of the process."""

    config: OperatorConfig
    token: TokenFor
    instance: str
    """Name of this replica, for Events."""


@dataclass(frozen=True)
class Planned:
    """A plan with the resource and the state that it was made from."""

    resource: Raw
    observed: Observed
    plan: Plan


class Controller:
    """Receives watch events, keeps a queue of resources to reconcile, and reconciles them with any number of workers."""

    def __init__(
        self, client: Client, kinds: Mapping[str, KindPlan], progress: ProgressReports, settings: Settings
    ) -> None:
        self._client, self._kinds, self._progress, self._settings = client, kinds, progress, settings
        self._versions: dict[ResourceKey, int] = {}
        """The resourceVersion that the last reconcile read or wrote."""
        self._children = ChildCache()
        self._workloads = WorkloadReader(client)
        self.queue: WorkQueue[ResourceKey] = WorkQueue()
        self.resources = Resources(lambda resource: kinds[resource["kind"]].references(resource))
        self.fleet = Fleet()

    def on_resource_event(self, event_type: str | None, resource: Raw) -> None:
        """Handle a watch event about one of our resources. `event_type` is None for the items of a list."""
        key = key_of(resource)
        if event_type and self._is_old(key, resource):
            return
        if event_type == "DELETED":
            self._remove(key)
            return
        self.fleet.update(key, resource)
        for referrer in self.resources.update(resource):
            self.queue.add(referrer)
        if not self.resources.is_unsettled(key):
            self._children.invalidate(key)
            self.queue.cancel_timer(key)
        elif event_type == "ADDED":
            self._children.add_new_resource(key, uid_of(resource))
        # A list follows a gap, in which events of children may be missing: it wakes every resource, changed or not.
        if self.resources.is_unsettled(key) and (event_type is None or self._has_unobserved_version(key)):
            self.queue.add(key, urgent=has_no_status(resource))

    def _is_old(self, key: ResourceKey, resource: Raw) -> bool:
        """Whether this version or a newer one has been received: a repeated ADDED must not mark the resource as new."""
        version = self.resources.version(key)
        return version is not None and int(resource["metadata"]["resourceVersion"]) <= int(version)

    def _has_unobserved_version(self, key: ResourceKey) -> bool:
        """Whether a version was received that no reconcile has read or written. One under way may still do so."""
        version = self.resources.version(key)
        return version is not None and not self.queue.is_busy(key) and int(version) > self._versions.get(key, -1)

    def on_child_event(self, event_type: str | None, kind: str, child: Raw) -> None:
        """Handle a watch event about a child. A resource that is not known yet is reconciled when its own event comes."""
        owner = owner_of(child)
        if owner is None:
            return
        is_relevant = self._children.on_event(owner, kind, child, deleted=event_type == "DELETED")
        if kind == "Job":
            self._progress.update_job(owner, child, deleted=event_type == "DELETED")
        if is_relevant and self.resources.is_unsettled(owner):
            self.queue.add_after(owner, COALESCE_SECONDS)

    def on_stream_start(self, kind: str, namespace: str | None, version: str | None) -> None:
        """Handle the start of a stream of children. Events before `version` may be lost."""
        self._children.on_stream_start(kind, namespace, version)
        self._enqueue_all(GAP_RESYNC_SECONDS)

    def on_progress_report(self, key: ResourceKey, seconds: float) -> None:
        """Reconcile the resource in `seconds`: a pod has reported."""
        if self.resources.is_unsettled(key):
            self.queue.add_after(key, seconds)

    async def work(self) -> None:
        """Run one worker until it is cancelled."""
        while True:
            key, succeeded = await self.queue.get(), False
            try:
                succeeded = await self._process(key)
            finally:
                self.queue.done(key)
            if succeeded and self.resources.is_unsettled(key) and self._has_unobserved_version(key):
                self.queue.add(key)

    async def resync(self) -> None:
        """Reconcile everything periodically, spread over time: watch streams can lose deletions."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            self._enqueue_all(RESYNC_SECONDS / 2)

    def _enqueue_all(self, seconds: float) -> None:
        """Reconcile every unsettled resource within `seconds`, from live reads."""
        for key in filter(self.resources.is_unsettled, self.resources):
            self._invalidate(key)
            self.queue.add_after(key, random.uniform(0, seconds))

    async def _process(self, key: ResourceKey) -> bool:
        """Reconcile one resource and schedule its next reconcile. Returns whether it succeeded."""
        started, result = time.perf_counter(), "error"
        with about(key):
            try:
                requeue_after = await self.reconcile(key)
            except ApiError as error:
                level = logging.INFO if error.conflict else logging.WARNING
                log.log(level, "reconcile failed, next attempt in %.1f s: %s", self._requeue_failed(key), error)
            except Exception:
                log.exception("unexpected error, next attempt in %.1f s", self._requeue_failed(key))
            else:
                result = "ok"
                self.queue.reset_backoff(key)
                if requeue_after is not None:
                    self.queue.add_after(key, requeue_after)
        metrics.RECONCILES.labels(key.kind, result).inc()
        metrics.RECONCILE_SECONDS.labels(key.kind).observe(time.perf_counter() - started)
        return result == "ok"

    def _requeue_failed(self, key: ResourceKey) -> float:
        """Schedule the next attempt, from live reads. Returns the seconds until then."""
        self._invalidate(key)
        return self.queue.add_after_failure(key)

    async def reconcile(self, key: ResourceKey) -> float | None:
        """Plan one resource and carry out the plan. Returns the seconds until the next reconcile, if it needs one.

        The order of the writes is that of `Plan`: create and apply, Events, status, delete.
        """
        now = datetime.now(UTC)
        planned = await self._plan(key, now)
        if planned is None:
            return None
        resource, uids = planned.resource, child_uids(planned.observed)
        plan = await self._make_children(planned, now)
        if self.queue.urgent and has_no_status(resource) and plan.create and not plan.apply:
            return DEFERRED_STATUS_SECONDS  # the Jobs of other new resources come first
        await send_events(self._client, resource, plan.events, now, self._settings.instance)
        if plan.status is not None and plan.status != resource.get("status"):
            self._record_version(key, await self._write_status(resource, plan.status))
        await delete_children(self._client, resource, plan, uids)
        return plan.requeue_after

    async def _plan(self, key: ResourceKey, now: datetime) -> Planned | None:
        """The plan to carry out; None if the resource is gone or being deleted.

        A plan from the cache counts unless it acts. Nothing is created, changed, deleted or decided for good by it.
        """
        if self._is_cached(key):
            planned = await self._plan_from_cache(key, now)
            if planned is None or not planned.plan.acts:
                return planned
            self._invalidate(key)
        return await self._plan_from_live(key, now)

    def _is_cached(self, key: ResourceKey) -> bool:
        """Whether a plan could rest on events alone. The children of a new resource are known to be none: no cache."""
        return self._cached_resource(key) is not None or self._children.may_be_stale(key)

    def _cached_resource(self, key: ResourceKey) -> Raw | None:
        """The resource from its watch stream, unless the last reconcile read or wrote a newer version."""
        return self.resources.get(key, self._versions[key]) if key in self._versions else None

    async def _plan_from_cache(self, key: ResourceKey, now: datetime) -> Planned | None:
        """Plan from the resource and the children in the cache; live reads fill the gaps."""
        return await self._plan_for(key, self._cached_resource(key) or await self._client.get(*key), now)

    async def _plan_from_live(self, key: ResourceKey, now: datetime) -> Planned | None:
        """Plan from the resource and the children as the API server holds them now."""
        return await self._plan_for(key, await self._client.get(*key), now)

    async def _plan_for(self, key: ResourceKey, resource: Raw | None, now: datetime) -> Planned | None:
        """Observe the children and plan. Children that the cache lacks are read live."""
        if resource is None:
            self._remove(key)
            return None
        self._record_version(key, resource)
        if is_deleting(resource):
            return None  # the garbage collector deletes its children; creating more would delay that
        if is_settled(resource):
            return None  # a timer fired that an event set before the last status was written
        kind = self._kinds[key.kind]
        observed = await observe(self._client, self._children, kind, resource, self._progress.latest(key))
        observed = replace(observed, cycle=self.resources.cycle(resource, observed.references))
        observed = await observe_events(self._client, kind, resource, observed, now)
        if self._settings.config.kueue.enabled:
            observed = await self._workloads.observe(resource, observed)
        return Planned(resource, observed, self._call_plan(resource, observed, now))

    def _call_plan(self, resource: Raw, observed: Observed, now: datetime) -> Plan:
        plan = self._kinds[resource["kind"]].plan
        return plan(resource, observed, now, self._settings.config, self._settings.token)

    async def _make_children(self, planned: Planned, now: datetime) -> Plan:
        """Create and apply children. Obstacles become part of the observed state, and the plan is made again with them."""
        resource, observed, plan = planned.resource, planned.observed, planned.plan
        for _ in range(MAX_PLANS):
            obstacles = await make_children(self._client, self._children, resource, plan, child_uids(observed))
            if not obstacles:
                return plan
            observed = obstacles.add_to(observed)
            plan = self._call_plan(resource, observed, now)
        raise RuntimeError(f"the plan repeats a write that was refused: {obstacles}")

    async def _write_status(self, resource: Raw, status: Raw) -> Raw:
        """Write the status, without the fields that the API server rejects. Returns the resource as written.

        The rest of the plan, such as the deletion of a Job, must not wait for a field that will never be accepted.
        """
        try:
            return await self._client.write_status(resource, status)
        except ApiError as error:
            if not error.invalid:
                raise
            log.error("the API server rejects the status; writing it without the invalid fields: %s", error)
            rest = without_invalid_fields(resource.get("status") or {}, status, error.fields)
        return resource if rest == resource.get("status") else await self._client.write_status(resource, rest)

    def _record_version(self, key: ResourceKey, resource: Raw) -> None:
        self._versions[key] = int(resource["metadata"]["resourceVersion"])

    def _invalidate(self, key: ResourceKey) -> None:
        """Drop what is cached of a resource and its children: the next plan reads live."""
        self._children.invalidate(key)
        self._versions.pop(key, None)

    def _remove(self, key: ResourceKey) -> None:
        """Drop all state of a resource that is gone, and reconcile those that refer to it."""
        for referrer in self.resources.remove(key):
            self.queue.add(referrer)
        self.fleet.remove(key)
        self._invalidate(key)
        self.queue.reset_backoff(key)
        self.queue.cancel_timer(key)
        self._progress.remove_resource(key)


def without_invalid_fields(old: Raw, new: Raw, invalid: Iterable[str]) -> Raw:
    """`new`, with the fields of the paths `invalid` as in `old`; if none is named, only the essential fields of `new`."""
    named = {path.removeprefix("status.").partition(".")[0].partition("[")[0] for path in invalid} & new.keys()
    left_out = named or new.keys() - ESSENTIAL_STATUS_FIELDS
    kept = {name: value for name, value in new.items() if name not in left_out}
    return kept | {name: value for name, value in old.items() if name in left_out}
