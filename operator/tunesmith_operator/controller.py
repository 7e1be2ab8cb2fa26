"""From an event to a plan carried out: which resources to look at, when, and one look at one of them."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tunesmith_operator import metrics
from tunesmith_operator.children import Children
from tunesmith_operator.client import ApiError, Client, Raw
from tunesmith_operator.events import send_events
from tunesmith_operator.execute import delete_children, make_children
from tunesmith_operator.fleet import Fleet
from tunesmith_operator.log import about
from tunesmith_operator.observe import child_uids, observe, observe_events
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.names import is_deleting, is_unseen, uid_of
from tunesmith_operator.plan.types import KindPlan, Observed, Plan, TokenFor
from tunesmith_operator.progress_receiver import ProgressBook
from tunesmith_operator.queue import WorkQueue
from tunesmith_operator.resources import ResourceKey, Resources, key_of, owner_of
from tunesmith_operator.workloads import observe_workloads

RESYNC_SECONDS = 600.0
MISSED_SECONDS = 10.0
"""Within which all is looked at when a stream begins anew."""
BURST_SECONDS = 0.2
"""Events of children come in bursts: a pod is made, counted and put on a node within a moment."""
TOLD_SECONDS = 5.0
"""After which a new job, whose telling was left for later because other new ones had no children yet, is told of even if nothing
was heard of its children."""
PASSES = 4
"""How often one reconcile plans anew because of what stood in the way: a name taken, a refusal; then it is a failure."""

ESSENTIAL = frozenset({"phase", "reason", "message", "conditions", "observedGeneration", "attempt", "failures"})
"""What is written of a status that is refused as a whole."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What a controller is told at its start."""

    config: OperatorConfig
    token: TokenFor
    instance: str
    """Name of this replica, for Events."""


class Controller:
    """Hears watch events, keeps a queue of resources to look at, and looks at them with so many workers."""

    def __init__(
        self, client: Client, kinds: Mapping[str, KindPlan], progress: ProgressBook, settings: Settings
    ) -> None:
        self._client, self._kinds, self._progress, self._settings = client, kinds, progress, settings
        self._seen: dict[ResourceKey, int] = {}
        """The version of a resource that the last look at it has read or written."""
        self._children = Children()
        self.queue: WorkQueue[ResourceKey] = WorkQueue()
        self.resources = Resources(lambda resource: kinds[resource["kind"]].references(resource))
        self.fleet = Fleet()

    def heard_resource(self, event_type: str | None, resource: Raw) -> None:
        """A watch event about a resource of ours. `event_type` is None for what the first list holds."""
        key = key_of(resource)
        if event_type and self._is_old(key, resource):
            return
        if event_type == "DELETED":
            self._forget(key)
            return
        self.fleet.update(key, resource)
        for other in self.resources.update(resource):
            self.queue.add(other)
        if not self.resources.unsettled(key):
            self._children.forget(key)
        elif event_type == "ADDED":
            self._children.bear(key, uid_of(resource))
        # A list is heard of after a gap, in which children may have gone unheard: then even what was seen is news.
        if self.resources.unsettled(key) and (event_type is None or self._is_new(key)):
            self.queue.add(key, first=is_unseen(resource))

    def _is_old(self, key: ResourceKey, resource: Raw) -> bool:
        """Whether as much, or more, was heard before: an ADDED heard twice would make a resource newborn once more."""
        version = self.resources.version(key)
        return version is not None and int(resource["metadata"]["resourceVersion"]) <= int(version)

    def _is_new(self, key: ResourceKey) -> bool:
        """Whether something was heard of a resource that no look has seen; one that is under way may see or write it."""
        version = self.resources.version(key)
        return version is not None and not self.queue.is_busy(key) and int(version) > self._seen.get(key, -1)

    def heard_child(self, event_type: str | None, kind: str, child: Raw) -> None:
        """A watch event about a child. A resource that is not known yet will be looked at when it is."""
        owner = owner_of(child)
        if owner is None:
            return
        is_news = self._children.hear(owner, kind, child, gone=event_type == "DELETED")
        if kind == "Job":
            self._progress.update_job(owner, child, gone=event_type == "DELETED")
        if is_news and self.resources.unsettled(owner):
            self.queue.add_after(owner, BURST_SECONDS)

    def stream_begins(self, kind: str, namespace: str | None, version: str | None) -> None:
        """What happened to children before `version` may not have been heard."""
        self._children.begin(kind, namespace, version)
        self._look_at_all(MISSED_SECONDS)

    def heard_progress(self, key: ResourceKey, seconds: float) -> None:
        """A pod has reported; its resource is to be looked at in `seconds`."""
        if self.resources.unsettled(key):
            self.queue.add_after(key, seconds)

    async def work(self) -> None:
        """One worker, for ever."""
        while True:
            key, is_done = await self.queue.get(), False
            try:
                is_done = await self._work_on(key)
            finally:
                self.queue.done(key)
            if is_done and self.resources.unsettled(key) and self._is_new(key):
                self.queue.add(key)

    async def resync(self) -> None:
        """Look at everything now and then, spread over time: watch streams can lose deletions."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            self._look_at_all(RESYNC_SECONDS / 2)

    def _look_at_all(self, seconds: float) -> None:
        """Look at all that is not settled within `seconds`, as if nothing had been told."""
        for key in filter(self.resources.unsettled, self.resources):
            self._doubt(key)
            self.queue.add_after(key, random.uniform(0, seconds))

    async def _work_on(self, key: ResourceKey) -> bool:
        """Look at one resource, and see to it that it is looked at again when it must be. Whether the look succeeded."""
        started = time.perf_counter()
        with about(key):
            try:
                requeue_after = await self.reconcile(key)
            except ApiError as error:
                self._doubt(key)
                result, delay = "error", self.queue.add_failed(key)
                level = logging.INFO if error.conflict else logging.WARNING
                log.log(level, "will try again in %.1f s: %s", delay, error)
            except Exception:
                self._doubt(key)
                result, delay = "error", self.queue.add_failed(key)
                log.exception("unexpected error; will try again in %.1f s", delay)
            else:
                result = "ok"
                self.queue.forget_failures(key)
                if requeue_after is not None:
                    self.queue.add_after(key, requeue_after)
        metrics.RECONCILES.labels(key.kind, result).inc()
        metrics.RECONCILE_SECONDS.labels(key.kind).observe(time.perf_counter() - started)
        return result == "ok"

    async def reconcile(self, key: ResourceKey) -> float | None:
        """Bring one resource nearer to what it asks for. Returns the seconds after which to look again, if any."""
        kind, now = self._kinds[key.kind], datetime.now(UTC)
        look = await self._look(key, kind, now)
        if look is None:
            return None
        resource, observed, plan = look
        uids = child_uids(observed)
        plan = await self._make_children(kind, resource, observed, plan, now)
        if self.queue.first and is_unseen(resource) and plan.create and not plan.apply:
            return TOLD_SECONDS  # of many new jobs, each has its work begun before any is told of
        await send_events(self._client, resource, plan.events, now, self._settings.instance)
        if plan.status is not None and plan.status != resource.get("status"):
            self._saw(key, await self._write_status(resource, plan.status))
        await delete_children(self._client, resource, plan, uids)
        return plan.requeue_after

    def _saw(self, key: ResourceKey, resource: Raw) -> None:
        self._seen[key] = int(resource["metadata"]["resourceVersion"])

    async def _write_status(self, resource: Raw, status: Raw) -> Raw:
        """The resource with the new status, or with what the API server takes of it: what else the plan asks for, such
        as the end of a Job, must not wait for a field that will never fit."""
        try:
            return await self._client.write_status(resource, status)
        except ApiError as error:
            if not error.invalid:
                raise
            log.error("the status is refused and written without what is wrong with it: %s", error)
            rest = acceptable(resource.get("status") or {}, status, error.fields)
        return resource if rest == resource.get("status") else await self._client.write_status(resource, rest)

    async def _look(self, key: ResourceKey, kind: KindPlan, now: datetime) -> tuple[Raw, Observed, Plan] | None:
        """How things stand and what to do; None: nothing. What streams told, of the resource too once it has been
        looked at, may be late: nothing is made, changed, deleted or decided for good because of it."""
        resource = self.resources.copy(key, self._seen[key]) if key in self._seen else None
        late = resource is not None or self._children.may_be_late(key)
        resource = resource or await self._client.get(*key)
        if resource is None:
            self._forget(key)
            return None
        self._saw(key, resource)
        if is_deleting(resource):
            return None  # its children go with it; making more would hold it up
        observed = await observe(self._client, self._children, kind, resource, self._progress.reports(key))
        observed = replace(observed, ring=self.resources.ring(resource, observed.references))
        observed = await observe_events(self._client, kind, resource, observed, now)
        if self._settings.config.kueue.enabled:
            observed = await observe_workloads(self._client, resource, observed)
        plan = self._plan(kind, resource, observed, now)
        if late and plan.acts:
            self._doubt(key)
            return await self._look(key, kind, now)
        return resource, observed, plan

    def _doubt(self, key: ResourceKey) -> None:
        """Read all live at the next look."""
        self._children.forget(key)
        self._seen.pop(key, None)

    def _plan(self, kind: KindPlan, resource: Raw, observed: Observed, now: datetime) -> Plan:
        return kind.plan(resource, observed, now, self._settings.config, self._settings.token)

    async def _make_children(
        self, kind: KindPlan, resource: Raw, observed: Observed, plan: Plan, now: datetime
    ) -> Plan:
        """Make children, and plan anew with what stood in the way, until nothing does."""
        for _ in range(PASSES):
            obstacles = await make_children(self._client, self._children, resource, plan, child_uids(observed))
            if not obstacles:
                return plan
            observed = obstacles.seen(observed)
            plan = self._plan(kind, resource, observed, now)
        raise RuntimeError(f"the plan asks again for what was refused: {obstacles}")

    def _forget(self, key: ResourceKey) -> None:
        """A resource is gone: nothing is kept of it, and those that refer to it get to know."""
        for other in self.resources.remove(key):
            self.queue.add(other)
        self.fleet.remove(key)
        self._children.forget(key)
        self._seen.pop(key, None)
        self.queue.forget_failures(key)
        self.queue.discard_timer(key)
        self._progress.forget(key)


def acceptable(old: Raw, new: Raw, wrong: Iterable[str]) -> Raw:
    """`new` with the fields that hold a `wrong` path as they were in `old`; all but the essential ones, if that is none."""
    named = {path.removeprefix("status.").partition(".")[0].partition("[")[0] for path in wrong} & new.keys()
    left_out = named or new.keys() - ESSENTIAL
    kept = {name: value for name, value in new.items() if name not in left_out}
    return kept | {name: value for name, value in old.items() if name in left_out}
