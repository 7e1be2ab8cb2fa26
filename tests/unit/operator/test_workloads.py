"""What a queue says is read where there are Jobs that wait, and its absence is no error."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.plan.world import Cluster, fine_tune_job
from tunesmith_operator.client import ApiError
from tunesmith_operator.plan.jobs.queueing import JOB_UID_LABEL
from tunesmith_operator.plan.types import Raw
from tunesmith_operator.workloads import observe_workloads

JOB = "support-tune-1"


class Kueue:
    """Answers a list of Workloads, or with an error; keeps what it was asked for."""

    def __init__(self, error: int | None = None) -> None:
        self.error, self.asked = error, []

    async def list(self, kind: str, namespace: str, labels: Raw, cached: bool) -> list[Raw]:
        self.asked.append((kind, namespace, labels, cached))
        if self.error:
            raise ApiError("GET workloads", self.error, "Reason", "no")
        return [{"metadata": {"labels": labels}}]


def queued(**spec: Any) -> Cluster:
    cluster = Cluster(fine_tune_job(**spec))
    cluster.settle()
    return cluster


async def observed(kueue: Kueue, cluster: Cluster) -> tuple[Raw, ...]:
    seen = await observe_workloads(kueue, cluster.resource, cluster.observed())  # type: ignore[arg-type]
    return seen.workloads


async def test_the_workload_of_a_job_that_waits_is_found_by_the_jobs_uid():
    kueue, cluster = Kueue(), queued(queueName="gpus")
    [found] = await observed(kueue, cluster)
    assert found["metadata"]["labels"] == {JOB_UID_LABEL: cluster.jobs[JOB]["metadata"]["uid"]}
    assert [(kind, namespace, cached) for kind, namespace, _, cached in kueue.asked] == [("Workload", "team", True)]


@pytest.mark.parametrize("admitted", [True, False])
async def test_nothing_is_asked_where_nothing_waits(admitted):
    kueue, cluster = Kueue(), queued(queueName="gpus") if admitted else queued()
    if admitted:
        cluster.admit(JOB)
    assert await observed(kueue, cluster) == ()
    assert kueue.asked == []


@pytest.mark.parametrize("status", [403, 404])
async def test_without_the_right_or_without_kueue_a_job_waits_all_the_same(status):
    assert await observed(Kueue(status), queued(queueName="gpus")) == ()


async def test_a_list_that_failed_is_no_answer():
    with pytest.raises(ApiError):
        await observed(Kueue(500), queued(queueName="gpus"))
