from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.operator.memory_client import MemoryClient
from tunesmith_operator.children import ChildCache
from tunesmith_operator.client import ApiError
from tunesmith_operator.execute import delete_children, make_children
from tunesmith_operator.plan.types import Key, Plan, Raw

RESOURCE: Raw = {"kind": "FineTuneJob", "metadata": {"name": "support", "namespace": "team", "uid": "ours"}}


def child(kind: str = "Job", owner: str | None = "ours", **metadata: Any) -> Raw:
    owners = [{"kind": "FineTuneJob", "name": "support", "uid": owner, "controller": True}] if owner else []
    return {"kind": kind, "metadata": {"name": "child", "namespace": "team", "ownerReferences": owners, **metadata}}


def test_a_job_that_is_there_already_and_ours_is_success() -> None:
    client = MemoryClient(child())
    assert not asyncio.run(make_children(client, ChildCache(), RESOURCE, Plan(create=(child(),)), {}))


@pytest.mark.parametrize("owner", [None, "theirs"])
def test_a_job_of_somebody_else_is_an_obstacle_and_stays_as_it_is(owner: str | None) -> None:
    client = MemoryClient(child(owner=owner))
    before = dict(client.things)
    obstacles = asyncio.run(make_children(client, ChildCache(), RESOURCE, Plan(create=(child(),)), {}))
    assert obstacles.foreign == {Key("Job", "child")}
    assert client.things == before


def test_a_job_that_a_deleted_resource_of_the_same_name_left_is_told_apart() -> None:
    left = child()
    left["metadata"]["ownerReferences"] = [
        {"kind": RESOURCE["kind"], "name": RESOURCE["metadata"]["name"], "uid": "before", "controller": True}
    ]
    obstacles = asyncio.run(make_children(MemoryClient(left), ChildCache(), RESOURCE, Plan(create=(child(),)), {}))
    assert obstacles.former == obstacles.foreign == {Key("Job", "child")}


@pytest.mark.parametrize("status", [403, 422])
@pytest.mark.parametrize("verb", ["create", "apply"])
def test_what_the_api_server_refuses_is_an_obstacle_with_its_words(verb: str, status: int) -> None:
    client = MemoryClient()
    client.refuse[(verb, "Job")] = ApiError("POST", status, "Forbidden", "exceeded quota: count/jobs")
    plan = Plan(create=(child(),)) if verb == "create" else Plan(apply=(child(),))
    obstacles = asyncio.run(make_children(client, ChildCache(), RESOURCE, plan, {}))
    assert obstacles.refused == {Key("Job", "child"): "exceeded quota: count/jobs"}


@pytest.mark.parametrize("status", [0, 401, 500, 503])
def test_a_failure_that_may_pass_is_raised(status: int) -> None:
    client = MemoryClient()
    client.refuse[("create", "Job")] = ApiError("POST", status, "", "")
    with pytest.raises(ApiError):
        asyncio.run(make_children(client, ChildCache(), RESOURCE, Plan(create=(child(),)), {}))


def test_apply_goes_to_the_object_that_was_seen_and_to_no_other() -> None:
    client = MemoryClient(child("Deployment", owner="theirs", uid="new"))
    with pytest.raises(ApiError) as caught:
        asyncio.run(
            make_children(
                client, ChildCache(), RESOURCE, Plan(apply=(child("Deployment"),)), {Key("Deployment", "child"): "old"}
            )
        )
    assert caught.value.conflict
    with pytest.raises(ApiError):
        asyncio.run(make_children(client, ChildCache(), RESOURCE, Plan(apply=(child("Deployment"),)), {}))
    assert client.things[("Deployment", "team", "child")]["metadata"]["ownerReferences"][0]["uid"] == "theirs"


def test_delete_spares_what_took_the_place_of_the_child_and_what_was_never_seen() -> None:
    client = MemoryClient(child(uid="new"))
    plan = Plan(delete=(Key("Job", "child"), Key("Service", "child")))
    asyncio.run(delete_children(client, RESOURCE, plan, {Key("Job", "child"): "old"}))
    assert client.things
    asyncio.run(delete_children(client, RESOURCE, plan, {Key("Job", "child"): "new"}))
    assert not client.things
    assert ("delete", "Service", "child") not in client.writes()
