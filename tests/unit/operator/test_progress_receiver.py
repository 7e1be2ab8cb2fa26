from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer

from tunesmith_operator.plan.names import TOKEN_ANNOTATION, child_metadata
from tunesmith_operator.plan.types import Raw
from tunesmith_operator.progress_receiver import BODY_BYTES, PATH, ProgressEndpoint, ProgressReports, token_maker
from tunesmith_operator.resources import ResourceKey

OWNER = ResourceKey("FineTuneJob", "team", "support")
OTHER = ResourceKey("FineTuneJob", "team", "other")
TOKEN, OTHER_TOKEN = "token-of-support", "token-of-other"
REPORT = {"stage": "train", "step": 3, "totalSteps": 30, "loss": 1.5}


def job(owner: ResourceKey, name: str, token: str, finished: bool = False, second: int = 0) -> Raw:
    """A Job of `owner`, created at this second of a minute."""
    conditions = [{"type": "Complete", "status": "True"}] if finished else []
    annotations = {TOKEN_ANNOTATION: hashlib.sha256(token.encode()).hexdigest()}
    resource = {"kind": owner.kind, "metadata": {"namespace": owner.namespace, "name": owner.name, "uid": str(owner)}}
    metadata = child_metadata(resource, name, "tune", annotations)
    metadata["creationTimestamp"] = f"2026-01-02T03:04:{second:02}Z"
    return {"metadata": metadata, "status": {"conditions": conditions}}


@dataclass
class Scene:
    """An endpoint with two Jobs, a manual clock, and the calls of `on_report`."""

    http: TestClient[Any, Any]
    reports: ProgressReports
    calls: list[tuple[ResourceKey, float]] = field(default_factory=list)
    now: float = 1000.0
    is_leader: bool = True
    leader_url: str | None = None

    async def push(self, token: str | None = TOKEN, body: bytes | None = None) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.http.post(PATH, data=json.dumps(REPORT) if body is None else body, headers=headers) as answer:
            return answer.status


@pytest_asyncio.fixture(loop_scope="function")
async def scene() -> AsyncIterator[Scene]:
    async with aiohttp.ClientSession() as session:
        reports = ProgressReports()
        reports.update_job(OWNER, job(OWNER, "support-tune-1", TOKEN), deleted=False)
        reports.update_job(OTHER, job(OTHER, "other-tune-1", OTHER_TOKEN), deleted=False)
        holder: list[Scene] = []
        endpoint = ProgressEndpoint(
            reports,
            clock=lambda: holder[0].now,
            on_report=lambda key, seconds: holder[0].calls.append((key, seconds)),
            leader_url=lambda: holder[0].leader_url,
            is_leader=lambda: holder[0].is_leader,
            session=session,
        )
        async with TestClient(TestServer(endpoint.application())) as http:
            holder.append(Scene(http, reports))
            yield holder[0]


async def test_a_report_counts_for_the_job_of_its_token_and_for_no_other(scene: Scene) -> None:
    assert await scene.push() == 204
    assert scene.calls == [(OWNER, 0.0)]
    assert scene.reports.latest(OWNER)["support-tune-1"].report.step == 3
    assert scene.reports.latest(OTHER) == {}


@pytest.mark.parametrize("token", [None, "", "wrong", hashlib.sha256(TOKEN.encode()).hexdigest()])
async def test_a_report_without_a_valid_token_is_refused(scene: Scene, token: str | None) -> None:
    assert await scene.push(token) == 401
    assert scene.calls == []


@pytest.mark.parametrize("deleted", [True, False])
async def test_the_token_of_an_ended_job_is_invalid(scene: Scene, deleted: bool) -> None:
    await scene.push()
    scene.reports.update_job(OWNER, job(OWNER, "support-tune-1", TOKEN, finished=not deleted), deleted)
    assert await scene.push() == 401
    assert scene.reports.latest(OWNER) == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"stage": 3}', b'{"stage": "train", "step": -1}', b"\xff"])
async def test_a_body_that_is_no_report_is_refused(scene: Scene, body: bytes) -> None:
    assert await scene.push(body=body) == 400
    assert scene.calls == []


async def test_a_body_that_is_too_long_is_refused(scene: Scene) -> None:
    assert await scene.push(body=b" " * (BODY_BYTES + 1)) == 413


async def test_reports_are_limited_per_job(scene: Scene) -> None:
    assert [await scene.push() for _ in range(5)] == [204, 429, 429, 429, 429]
    assert await scene.push(OTHER_TOKEN) == 204
    scene.now += 1
    assert await scene.push() == 204


async def test_concurrent_reports_count_against_the_limit(scene: Scene) -> None:
    statuses = await asyncio.gather(*(scene.push() for _ in range(20)))
    assert sorted(statuses) == [204] + [429] * 19


async def test_reports_wake_their_resource_at_most_every_five_seconds(scene: Scene) -> None:
    due: dict[float, None] = {}
    for _ in range(30):
        assert await scene.push() == 204
        due |= dict.fromkeys(scene.now + seconds for _, seconds in scene.calls)
        scene.calls.clear()
        scene.now += 1
    assert list(due) == [1000 + 5 * number for number in range(len(due))]
    assert len(due) in (6, 7)


async def test_a_deleted_resource_or_job_leaves_nothing_behind(scene: Scene) -> None:
    scene.reports.remove_resource(OWNER)
    scene.reports.update_job(OTHER, job(OTHER, "other-tune-1", OTHER_TOKEN), deleted=True)
    assert len(scene.reports) == 0


@pytest.mark.parametrize("owner", [OWNER, OTHER, ResourceKey("EvalJob", "elsewhere", "eval")])
@pytest.mark.parametrize("copy_first", [True, False])
async def test_a_job_with_a_copied_token_hash_gains_nothing(owner: ResourceKey, copy_first: bool) -> None:
    reports = ProgressReports()
    jobs = [(OWNER, job(OWNER, "support-tune-1", TOKEN)), (owner, job(owner, "copy", TOKEN, second=1))]
    for of, its_job in reversed(jobs) if copy_first else jobs:
        reports.update_job(of, its_job, deleted=False)
    for deleted in (False, True):
        holder = reports.job_of(TOKEN)
        assert holder is not None
        assert (holder.owner, holder.name) == (OWNER, "support-tune-1")
        reports.update_job(owner, jobs[1][1], deleted)


@pytest.mark.parametrize(
    "lie", [{"kind": "EvalJob"}, {"name": "x"}, {"uid": "x"}, {"apiVersion": "v1"}, {"controller": False}]
)
def test_a_job_that_is_ours_by_labels_only_may_not_report(lie: dict[str, Any]) -> None:
    reports, labelled = ProgressReports(), job(OWNER, "support-tune-1", TOKEN)
    labelled["metadata"]["ownerReferences"][0] |= lie
    reports.update_job(OWNER, labelled, deleted=False)
    assert reports.job_of(TOKEN) is None


async def test_a_standby_forwards_reports_unchanged(scene: Scene) -> None:
    async with aiohttp.ClientSession() as session:
        standby = ProgressEndpoint(
            ProgressReports(),
            clock=lambda: 0.0,
            on_report=lambda key, seconds: None,
            leader_url=lambda: str(scene.http.make_url("")).rstrip("/"),
            is_leader=lambda: False,
            session=session,
        )
        async with TestClient(TestServer(standby.application())) as http:
            for token, status in ((TOKEN, 204), ("wrong", 401)):
                async with http.post(PATH, json=REPORT, headers={"Authorization": f"Bearer {token}"}) as answer:
                    assert answer.status == status
            async with http.post(PATH, data=b" " * (BODY_BYTES + 1)) as answer:
                assert answer.status == 413
    assert scene.calls == [(OWNER, 0.0)]


async def test_a_standby_without_a_leader_answers_503_and_never_forwards_twice(scene: Scene) -> None:
    scene.is_leader = False
    assert await scene.push() == 503
    scene.leader_url = str(scene.http.make_url("")).rstrip("/")
    assert await scene.push() == 503


def test_a_token_depends_on_the_key_the_resource_and_the_job() -> None:
    token, other = token_maker(b"key"), token_maker(b"other key")
    assert token("uid", "job-1") == token("uid", "job-1")
    different = {token("uid", "job-1"), token("uid", "job-2"), token("uid2", "job-1"), other("uid", "job-1")}
    assert len(different) == 4
