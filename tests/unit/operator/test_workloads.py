"""Workloads are read for Jobs that wait, in a version that the API server serves; that they cannot be read is reported."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from tests.unit.operator.plan.world import Cluster, fine_tune_job
from tunesmith_operator.client import ApiError
from tunesmith_operator.plan.jobs.queueing import JOB_UID_LABEL
from tunesmith_operator.plan.types import Observed, Raw
from tunesmith_operator.workloads import FORBIDDEN, NOT_SERVED, WorkloadReader

JOB = "support-tune-1"


class Kueue:
    """An API server that serves Workloads in `served` of the group's `versions`, or fails with `error`."""

    def __init__(self, *served: str, versions: Sequence[str] = (), error: int | None = None) -> None:
        self.served, self.versions, self.error = served, versions or served, error
        self.lists: list[tuple[str, Raw, bool]] = []
        self.discoveries = 0

    async def served_versions(self, group: str) -> Sequence[str]:
        assert group == "kueue.x-k8s.io"
        self.discoveries += 1
        return self.versions

    async def list(self, kind: str, namespace: str, labels: Raw, cached: bool, version: str) -> list[Raw]:
        assert (kind, namespace) == ("Workload", "team")
        self.lists.append((version, labels, cached))
        if error := self.error or (None if version in self.served else 404):
            raise ApiError("GET workloads", error, "Reason", "no")
        return [{"apiVersion": version, "metadata": {"labels": labels}}]


def queued(**spec: Any) -> Cluster:
    cluster = Cluster(fine_tune_job(**spec))
    cluster.settle()
    return cluster


WAITING = queued(queueName="gpus")


async def observe(kueue: Kueue, reader: WorkloadReader | None = None, cluster: Cluster = WAITING) -> Observed:
    reader = reader or WorkloadReader(kueue)  # type: ignore[arg-type]
    return await reader.observe(cluster.resource, cluster.observed())


def versions(observed: Observed) -> list[str]:
    return [workload["apiVersion"] for workload in observed.workloads]


async def test_the_workload_of_a_job_that_waits_is_found_by_the_jobs_uid():
    kueue = Kueue("v1beta2")
    [found] = (await observe(kueue)).workloads
    assert found["metadata"]["labels"] == {JOB_UID_LABEL: WAITING.jobs[JOB]["metadata"]["uid"]}
    assert kueue.lists == [("v1beta2", found["metadata"]["labels"], True)]


@pytest.mark.parametrize("admitted", [True, False])
async def test_nothing_is_read_if_no_job_waits(admitted):
    kueue, cluster = Kueue("v1beta2"), queued(queueName="gpus") if admitted else queued()
    if admitted:
        cluster.admit(JOB)
    assert await observe(kueue, cluster=cluster) == cluster.observed()
    assert (kueue.lists, kueue.discoveries) == ([], 0)


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
async def test_the_served_version_is_discovered_once(version):
    kueue = Kueue(version)
    reader = WorkloadReader(kueue)  # type: ignore[arg-type]
    for _ in range(3):
        assert versions(await observe(kueue, reader)) == [version]
    assert kueue.discoveries == 1


async def test_the_preferred_version_of_the_group_need_not_be_one_of_workloads():
    kueue = Kueue("v1beta2", versions=("v1", "v1beta2"))
    reader = WorkloadReader(kueue)  # type: ignore[arg-type]
    for _ in range(3):
        assert versions(await observe(kueue, reader)) == ["v1beta2"]
    assert [version for version, *_ in kueue.lists] == ["v1", "v1beta2", "v1beta2", "v1beta2"]


async def test_a_version_that_an_upgrade_of_kueue_removes_is_discovered_again():
    kueue = Kueue("v1beta1")
    reader = WorkloadReader(kueue)  # type: ignore[arg-type]
    assert versions(await observe(kueue, reader)) == ["v1beta1"]
    kueue.served = kueue.versions = ("v1beta2",)
    assert versions(await observe(kueue, reader)) == ["v1beta2"]


@pytest.mark.parametrize(
    ("kueue", "problem"),
    [
        (Kueue(), NOT_SERVED),
        (Kueue(versions=("v1alpha1",)), NOT_SERVED),
        (Kueue("v1beta2", error=403), FORBIDDEN),
    ],
    ids=["no such group", "no workloads in the group", "forbidden"],
)
async def test_workloads_that_cannot_be_read_are_a_problem_that_is_logged_once_and_not_an_error(kueue, problem, caplog):
    reader = WorkloadReader(kueue)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            observed = await observe(kueue, reader)
            assert (observed.workloads, observed.workloads_problem) == ((), problem)
    assert len([record for record in caplog.records if problem in record.getMessage()]) == 1


async def test_a_problem_that_returns_is_logged_again(caplog):
    kueue = Kueue("v1beta2", error=403)
    reader = WorkloadReader(kueue)  # type: ignore[arg-type]
    for error in (403, None, 403):
        kueue.error = error
        assert bool((await observe(kueue, reader)).workloads_problem) is bool(error)
    assert len(caplog.records) == 2


async def test_a_list_that_fails_otherwise_fails_the_reconcile():
    with pytest.raises(ApiError):
        await observe(Kueue("v1beta2", error=500))
