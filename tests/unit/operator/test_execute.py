from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.operator.simulated_cluster import SimulatedCluster
from tunesmith_operator.children import ChildCache
from tunesmith_operator.client import ApiError
from tunesmith_operator.execute import delete_children, make_children
from tunesmith_operator.plan.types import Key, Plan, Raw

RESOURCE: Raw = {"kind": "FineTuneJob", "metadata": {"name": "support", "namespace": "team", "uid": "ours"}}


def child(kind: str = "Job", owner: str | None = "ours", **metadata: Any) -> Raw:
    owners = [{"kind": "FineTuneJob", "name": "support", "uid": owner, "controller": True}] if owner else []
    return {"kind": kind, "metadata": {"name": "child", "namespace": "team", "ownerReferences": owners, **metadata}}


def test_a_job_of_ours_that_exists_already_is_success() -> None:
    client = SimulatedCluster(child())
    assert not asyncio.run(make_children(client, ChildCache(), RESOURCE, Plan(create=(child(),)), {}))


@pytest.mark.parametrize("owner", [None, "theirs"])
def test_a_job_of_another_controller_is_an_obstacle_and_stays_unchanged(owner: str | None) -> None:
    client = SimulatedCluster(child(owner=owner))
    before = dict(client.objects)
    obstacles = asyncio.run(make_children(client, ChildCache(), RESOURCE, Plan(create=(child(),)), {}))
    assert obstacles.foreign == {Key("Job", "child")}
    assert client.objects == before


def test_a_job_left_by_a_deleted_resource_of_the_same_name_is_recognized() -> None:
    left = child()
    left["metadata"]["ownerReferences"] = [
        {"kind": RESOURCE["kind"], "name": RESOURCE["metadata"]["name"], "uid": "before", "controller": True}
    ]
    obstacles = asyncio.run(make_children(SimulatedCluster(left), ChildCache(), RESOURCE, Plan(create=(child(),)), {}))
    assert obstacles.former == obstacles.foreign == {Key("Job", "child")}


@pytest.mark.parametrize("status", [403, 422])
@pytest.mark.parametrize("verb", ["create", "apply"])
def test_a_rejection_by_the_api_server_is_an_obstacle_with_its_message(verb: str, status: int) -> None:
    client = SimulatedCluster()
    client.errors[(verb, "Job")] = ApiError("POST", status, "Forbidden", "exceeded quota: count/jobs")
    plan = Plan(create=(child(),)) if verb == "create" else Plan(apply=(child(),))
    obstacles = asyncio.run(make_children(client, ChildCache(), RESOURCE, plan, {}))
    assert obstacles.refused == {Key("Job", "child"): "exceeded quota: count/jobs"}


@pytest.mark.parametrize("status", [0, 401, 500, 503])
def test_a_failure_that_may_pass_is_raised(status: int) -> None:
    client = SimulatedCluster()
    client.errors[("create", "Job")] = ApiError("POST", status, "", "")
    with pytest.raises(ApiError):
        asyncio.run(make_children(client, ChildCache(), RESOURCE, Plan(create=(child(),)), {}))


def test_apply_changes_only_the_observed_object() -> None:
    client = SimulatedCluster(child("Deployment", owner="theirs", uid="new"))
    with pytest.raises(ApiError) as caught:
        asyncio.run(
            make_children(
                client, ChildCache(), RESOURCE, Plan(apply=(child("Deployment"),)), {Key("Deployment", "child"): "old"}
            )
        )
    assert caught.value.conflict
    with pytest.raises(ApiError):
        asyncio.run(make_children(client, ChildCache(), RESOURCE, Plan(apply=(child("Deployment"),)), {}))
    assert client.objects[("Deployment", "team", "child")]["metadata"]["ownerReferences"][0]["uid"] == "theirs"


def test_delete_removes_only_the_observed_object() -> None:
    client = SimulatedCluster(child(uid="new"))
    plan = Plan(delete=(Key("Job", "child"), Key("Service", "child")))
    asyncio.run(delete_children(client, RESOURCE, plan, {Key("Job", "child"): "old"}))
    assert client.objects
    asyncio.run(delete_children(client, RESOURCE, plan, {Key("Job", "child"): "new"}))
    assert not client.objects
    assert ("delete", "Service", "child") not in client.writes()
