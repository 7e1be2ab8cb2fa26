"""Reconciles of a resource with plans that the test defines, and the events that cause them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.simulated_cluster import SimulatedCluster
from tests.unit.operator.virtual_time import run
from tunesmith_api.crdgen.crd import UNSEEN
from tunesmith_operator.client import ApiError
from tunesmith_operator.controller import (
    DEFERRED_STATUS_SECONDS,
    ESSENTIAL_STATUS_FIELDS,
    Controller,
    Settings,
    without_invalid_fields,
)
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.types import Event, EventType, Key, KindPlan, Observed, Plan, PlanFunction, Raw
from tunesmith_operator.progress_receiver import ProgressReports
from tunesmith_operator.resources import ResourceKey

KEY = ResourceKey("FineTuneJob", "team", "support")
CONFIG = OperatorConfig.model_validate({"images": {"runtime": "r"}, "store": {"uri": "s3://store"}})
RUNNING: Raw = {"phase": "Running", "attempt": 1, "metrics": {"steps": 1}}
SUSPENDED: Raw = {"phase": "Suspended", "attempt": 2, "metrics": {"steps": "many"}}


class Strict(SimulatedCluster):
    """Rejects a status with certain metrics, and names the field if `names_field`."""

    names_field = True

    async def write_status(self, resource: Raw, status: Raw) -> Raw:
        if status.get("metrics") == SUSPENDED["metrics"]:
            self._record("refused status", resource["kind"], resource["metadata"]["name"])
            fields = ["status.metrics.steps"] if self.names_field else []
            raise ApiError("PATCH", 422, "Invalid", "status.metrics.steps: must be an integer", fields)
        return await super().write_status(resource, status)


def scene(status: Raw) -> tuple[Strict, Controller]:
    owner = {"kind": KEY.kind, "name": KEY.name, "uid": "u", "controller": True}
    labels = {"tunesmith.dev/uid": "u"}
    job = {"name": "support-tune-1", "namespace": "team", "labels": labels, "ownerReferences": [owner]}
    client = Strict(
        {"kind": KEY.kind, "metadata": {"name": KEY.name, "namespace": "team", "uid": "u"}, "status": RUNNING},
        {"kind": "Job", "metadata": job},
    )
    return client, controller_of(client, status)


def controller_of(client: SimulatedCluster, status: Raw, plan: PlanFunction | None = None) -> Controller:
    kind = KindPlan(
        kind=KEY.kind,
        lists=("Job",),
        gets=lambda resource: frozenset(),
        references=lambda resource: frozenset(),
        wants_events=lambda resource, observed, now: frozenset(),
        plan=plan or (lambda *_: Plan(status=status, delete=(Key("Job", "support-tune-1"),))),
    )
    settings = Settings(CONFIG, lambda uid, name: "token", "pod-1")
    return Controller(client, {KEY.kind: kind}, ProgressReports(), settings)


@pytest.mark.parametrize("names_field", [True, False])
def test_a_rejected_status_does_not_keep_a_job_running_and_its_cause_is_logged(
    names_field: bool, caplog: pytest.LogCaptureFixture
) -> None:
    client, controller = scene(SUSPENDED)
    client.names_field = names_field
    with caplog.at_level(logging.ERROR):
        asyncio.run(controller.reconcile(KEY))
    assert "status.metrics.steps: must be an integer" in caplog.text
    assert client.objects[KEY]["status"] == {"phase": "Suspended", "attempt": 2, "metrics": {"steps": 1}}
    assert ("Job", "team", "support-tune-1") not in client.objects


def test_a_status_that_is_rejected_again_is_not_written_again() -> None:
    client, controller = scene(SUSPENDED)
    for _ in range(3):
        asyncio.run(controller.reconcile(KEY))
    assert [verb for verb, *_ in client.writes()].count("status") == 1


@pytest.mark.parametrize("status", [0, 409, 500])
def test_nothing_is_deleted_if_the_status_could_not_be_written(status: int) -> None:
    client, controller = scene({"phase": "Suspended"})
    client.errors[("status", KEY.kind)] = ApiError("PATCH", status, "", "")
    with pytest.raises(ApiError):
        asyncio.run(controller.reconcile(KEY))
    assert ("Job", "team", "support-tune-1") in client.objects


@pytest.mark.parametrize(
    ("plan", "lists"),
    [
        (Plan(), 1),
        (Plan(status=SUSPENDED), 1),
        (Plan(delete=(Key("Job", "support-tune-1"),)), 2),
        (Plan(create=({"kind": "Job", "metadata": {"name": "support-tune-2", "namespace": "team"}},)), 2),
        (Plan(apply=({"kind": "Service", "metadata": {"name": "support", "namespace": "team"}},)), 2),
        (Plan(status=SUSPENDED, for_good=True), 2),
    ],
    ids=["nothing", "status", "delete", "create", "apply", "for good"],
)
def test_nothing_is_created_changed_deleted_or_decided_for_good_from_the_cache(plan: Plan, lists: int) -> None:
    """`lists`: how often the resource is read and its Jobs are listed in two reconciles, the second from the cache."""
    client, _ = scene(RUNNING)
    plans = [Plan(), plan, plan]
    controller = controller_of(client, {}, lambda *_: plans.pop(0))
    controller.on_stream_start("Job", None, "1")
    for _ in range(2):
        asyncio.run(controller.reconcile(KEY))
        controller.on_resource_event("MODIFIED", client.objects[KEY])
    calls = [call[:2] for call in client.calls]
    assert calls.count(("list", "Job")) == lists
    assert calls.count(("get", KEY.kind)) == lists


@pytest.mark.parametrize(
    ("has_event", "disturbance", "reads"),
    [(True, None, 1), (False, None, 2), (True, "conflict", 2), (True, "resync", 2)],
    ids=["after its event", "before its event", "after an error", "after a resync"],
)
def test_a_resource_is_read_live_only_if_its_cached_state_may_be_stale(
    has_event: bool, disturbance: str | None, reads: int
) -> None:
    async def main() -> None:
        await controller.reconcile(KEY)
        if has_event:
            controller.on_resource_event("MODIFIED", client.objects[KEY])
        if disturbance == "conflict":
            client.errors[("status", KEY.kind)] = ApiError("PATCH", 409, "Conflict", "")
            await controller._process(KEY)
            client.errors.clear()
        if disturbance == "resync":
            controller.on_stream_start("Pod", None, "1")
        await controller.reconcile(KEY)

    client, _ = scene(RUNNING)
    statuses = iter(range(10))
    controller = controller_of(client, {}, lambda *_: Plan(status={"phase": "Running", "attempt": next(statuses)}))
    asyncio.run(main())
    assert [call[:2] for call in client.calls].count(("get", KEY.kind)) == reads


class Hasty(SimulatedCluster):
    """Delivers the event of a status before the response, and, if `others_write`, an event of a change by others."""

    controller: Controller
    others_write = False

    async def write_status(self, resource: Raw, status: Raw) -> Raw:
        written = await super().write_status(resource, status)
        self.controller.on_resource_event("MODIFIED", written)
        if self.others_write:
            self.controller.on_resource_event("MODIFIED", self.put({**written, "spec": {"retries": 1}}))
        return written


@pytest.mark.parametrize(("others_write", "reconciles"), [(False, 1), (True, 2)])
def test_the_event_of_an_own_write_wakes_nothing_and_a_change_by_others_wakes_once(
    others_write: bool, reconciles: int
) -> None:
    async def main() -> None:
        resource = {
            "kind": KEY.kind,
            "metadata": {"name": KEY.name, "namespace": "team", "uid": "u"},
            "status": RUNNING,
        }
        client.controller = controller_of(client, {"phase": "Suspended"})
        client.controller.on_resource_event("ADDED", client.put(resource))
        working = asyncio.create_task(client.controller.work())
        await asyncio.sleep(60)
        working.cancel()

    client = Hasty()
    client.others_write = others_write
    run(main())
    assert client.calls.count(("get", KEY.kind, KEY.name)) == reconciles


def test_a_failed_reconcile_backs_off() -> None:
    async def main() -> None:
        controller = controller_of(client, {"phase": "Suspended"})
        resource = {"kind": KEY.kind, "metadata": {"name": KEY.name, "namespace": "team", "uid": "u"}}
        controller.on_resource_event("ADDED", client.put(resource))
        working = asyncio.create_task(controller.work())
        await asyncio.sleep(60)
        working.cancel()

    client = SimulatedCluster()
    client.errors[("get", KEY.kind)] = ApiError("GET", 500, "", "")
    run(main())
    assert 1 < len(client.calls) < 12


def test_many_new_resources_all_get_their_jobs_before_any_gets_a_status() -> None:
    def plan(resource: Raw, *_: object) -> Plan:
        metadata = {"name": f"{resource['metadata']['name']}-tune-1", "namespace": "team"}
        is_there = ("Job", "team", metadata["name"]) in client.objects
        return Plan(
            create=() if is_there else ({"kind": "Job", "metadata": metadata},),
            status={"phase": "Running"},
            events=(Event(EventType.NORMAL, "Created", "The Job is there."),),
        )

    async def main() -> None:
        controller = controller_of(client, {}, plan)
        for name in names:
            metadata = {"name": name, "namespace": "team", "uid": name}
            new = {"kind": KEY.kind, "apiVersion": "tunesmith.dev/v1alpha1", "metadata": metadata, "status": UNSEEN}
            controller.on_resource_event("ADDED", client.put(new))
        working = asyncio.create_task(controller.work())
        await asyncio.sleep(DEFERRED_STATUS_SECONDS + 0.1)
        working.cancel()

    names = ["a", "b", "c"]
    client = SimulatedCluster()
    run(main())
    made = [(verb, kind) for verb, kind, *_ in client.writes()]
    assert made[:3] == [("create", "Job")] * 3
    assert sorted(made[3:]) == [("create", "Event")] * 3 + [("status", KEY.kind)] * 3


def test_resources_without_a_status_come_first_also_after_a_list() -> None:
    """After a gap in the stream, and at the start of an operator."""

    async def main() -> list[str]:
        controller = controller_of(SimulatedCluster(), {})
        for number, (name, status) in enumerate((("old", RUNNING), ("new", UNSEEN))):
            metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": str(number)}
            resource = {
                "kind": KEY.kind,
                "apiVersion": "tunesmith.dev/v1alpha1",
                "metadata": metadata,
                "status": status,
            }
            controller.on_resource_event(None, resource)
        return [(await controller.queue.get()).name for _ in range(2)]

    assert run(main()) == ["new", "old"]


def test_a_created_job_is_known_before_its_stream_reports_it() -> None:
    """The stream of Pods may be ahead of the stream of Jobs. The Job is neither created nor read again."""
    owner = {"kind": KEY.kind, "name": KEY.name, "uid": "u", "controller": True}
    job = {
        "name": "support-tune-1",
        "namespace": "team",
        "labels": {"tunesmith.dev/uid": "u"},
        "ownerReferences": [owner],
    }

    def plan(resource: Raw, observed: Observed, *_: object) -> Plan:
        return Plan(create=() if observed.jobs else ({"kind": "Job", "metadata": job},), status={"phase": "Pending"})

    async def main() -> None:
        controller = controller_of(client, {}, plan)
        controller.on_stream_start("Job", None, "1")
        metadata = {"name": KEY.name, "namespace": "team", "uid": "u"}
        resource = {"kind": KEY.kind, "apiVersion": "tunesmith.dev/v1alpha1", "metadata": metadata, "status": UNSEEN}
        controller.on_resource_event("ADDED", client.put(resource))
        await controller.reconcile(KEY)
        client.calls.clear()
        await controller.reconcile(KEY)

    client = SimulatedCluster()
    run(main())
    assert not [call for call in client.calls if "Job" in call]


def test_a_settled_resource_is_not_reconciled_by_a_timer_of_before() -> None:
    """An event of a child during the last reconcile sets a timer; then the status is final."""

    async def main() -> None:
        controller = controller_of(client, {"phase": "Running"})
        resource: Raw = {
            "kind": KEY.kind,
            "apiVersion": "tunesmith.dev/v1alpha1",
            "metadata": {"name": KEY.name, "namespace": "team", "uid": "u", "generation": 1},
            "status": RUNNING,
        }
        controller.on_resource_event("ADDED", client.put(resource))
        controller.queue.add_after(KEY, 1)
        final = {"phase": "Succeeded", "completionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}
        settled = client.put({**resource, "status": final})
        await controller.reconcile(KEY)  # before the event of the status
        assert client.calls == [("get", KEY.kind, KEY.name)]
        controller.on_resource_event("MODIFIED", settled)
        assert controller.queue.delayed == 0

    client = SimulatedCluster()
    run(main())


JOB: Raw = {"kind": "Job", "metadata": {"name": "support-tune-1", "namespace": "team"}}
SERVICE: Raw = {"kind": "Service", "metadata": {"name": "support", "namespace": "team"}}


@pytest.mark.parametrize(
    ("others", "status", "children", "writes_status"),
    [
        (1, UNSEEN, {"create": (JOB,)}, False),
        (0, UNSEEN, {"create": (JOB,)}, True),
        (1, UNSEEN, {}, True),
        (1, RUNNING, {"create": (JOB,)}, True),
        (1, UNSEEN, {"create": (JOB,), "apply": (SERVICE,)}, True),
    ],
    ids=["others wait", "no others", "nothing created", "a later attempt", "a service"],
)
def test_only_the_first_status_of_a_new_job_is_deferred_while_others_wait(
    others: int, status: Raw, children: dict[str, Any], writes_status: bool
) -> None:
    async def main() -> float | None:
        controller = controller_of(client, {}, lambda *_: Plan(status={"phase": "Pending"}, **children))
        for number in range(others):
            controller.queue.add(ResourceKey(KEY.kind, "team", f"other-{number}"), urgent=True)
        return await controller.reconcile(KEY)

    metadata = {"name": KEY.name, "namespace": "team", "uid": "u"}
    client = SimulatedCluster({"kind": KEY.kind, "metadata": metadata, "status": status})
    assert run(main()) == (None if writes_status else DEFERRED_STATUS_SECONDS)
    assert ("status" in [verb for verb, *_ in client.writes()]) is writes_status


PATHS = {"status.metrics.a[0]": "metrics", "status.artifacts[3].uri": "artifacts", "status": "", "spec.x": ""}
fields = st.dictionaries(
    st.sampled_from([*sorted(ESSENTIAL_STATUS_FIELDS), "metrics", "artifacts", "lastFailure"]), st.integers()
)


@given(fields, fields, st.sets(st.sampled_from(sorted(PATHS))))
def test_a_rejected_status_is_written_without_invalid_fields_and_with_all_essential_ones(
    old: Raw, new: Raw, wrong: set[str]
) -> None:
    rest = without_invalid_fields(old, new, wrong)
    named = {PATHS[path] for path in wrong} & new.keys()
    for name in named or new.keys() - ESSENTIAL_STATUS_FIELDS:
        assert rest.get(name) == old.get(name)
    for name in new.keys() - named if named else ESSENTIAL_STATUS_FIELDS & new.keys():
        assert rest[name] == new[name]
