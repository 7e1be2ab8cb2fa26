"""Two replicas: when the leader dies or stands still, the other leads in time, and one that comes back writes nothing."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from devcluster.standalone import ControlPlane
from tests.apiserver.chart import NAMESPACE, VALUES, operator_config, render
from tests.apiserver.cluster import Cluster, Raw
from tests.apiserver.finetunejobs import started, tune
from tests.apiserver.operator_process import USER, OperatorProcess
from tests.apiserver.proxy import Answer, Call, Forward, Proxy
from tests.apiserver.survival import replica
from tunesmith_operator.plan.config import OperatorConfig

LONGEST_TAKEOVER = 20.0
"""Seconds, promised for the chart's defaults."""
AS_INSTALLED: dict[str, Any] = {"leaderElection": {}}
"""The chart's defaults, in place of the tier's shorter times."""


def holder(cluster: Cluster) -> str:
    """The replica that the Lease names."""
    lease = Cluster(cluster.plane, cluster.http, NAMESPACE).get("Lease", "tunesmith-operator")
    assert lease is not None
    name: str = lease["spec"]["holderIdentity"].partition("_")[0]
    return name


def test_by_the_charts_defaults_another_leads_within_the_time_promised(plane: ControlPlane) -> None:
    """It asks at most so often, and has the last renewal for news when it has just been made."""
    raw = operator_config(render(plane, {**VALUES, **AS_INSTALLED}))
    times = OperatorConfig.model_validate(raw).leader_election
    longest_pause = 1.2 * times.retry_seconds
    assert times.lease_seconds + 2 * longest_pause <= LONGEST_TAKEOVER


def taken_over(
    cluster: Cluster, standby: OperatorProcess, signalled: float, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wait until the standby leads, which must be within the time promised since the leader got its signal."""
    cluster.until("the other leads", standby.leads)
    took = f"takeover after the leader was {what}: {(seconds := time.monotonic() - signalled):.1f} s"
    with capsys.disabled():
        print(f"\n{took}")
    assert seconds <= LONGEST_TAKEOVER, f"{took}, but {LONGEST_TAKEOVER:g} s are promised"


def test_when_the_leader_is_killed_another_takes_over_and_work_goes_on(
    plane: ControlPlane, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with replica(plane, tmp_path, "operator-0", **AS_INSTALLED) as leader:
        cluster.until("it leads", leader.leads)
        with replica(plane, tmp_path, "operator-1", **AS_INSTALLED) as standby:
            kubelet = started(cluster, "support")
            cluster.until_phase("FineTuneJob", "support", "Pending")
            assert not standby.leads()
            signalled = time.monotonic()
            leader.process.send_signal(signal.SIGKILL)
            taken_over(cluster, standby, signalled, "killed", capsys)
            kubelet.runs("train")
            cluster.until_phase("FineTuneJob", "support", "Running")
            assert [job["metadata"]["name"] for job in cluster.find("Job")] == ["support-tune-1"]
            assert standby.complaints() == []


def test_a_leader_that_was_frozen_within_a_look_writes_nothing_when_it_thaws(
    plane: ControlPlane, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has read all that it needs to make a Job, and stands still before it does."""
    with Proxy(plane) as proxy, replica(plane, tmp_path, "operator-0", proxy.url, **AS_INSTALLED) as frozen:
        cluster.until("it leads", frozen.leads)
        proxy.fault = freeze = Freeze(frozen, cluster.namespace)
        with replica(plane, tmp_path, "operator-1", **AS_INSTALLED) as standby:
            tune(cluster, "support")
            signalled = cluster.until("the leader is frozen", lambda: freeze.signalled)
            taken_over(cluster, standby, signalled, "frozen", capsys)
            cluster.until_phase("FineTuneJob", "support", "Pending")
            job, before = cluster.job("support-tune-1"), cluster.writes(USER)
            frozen.process.send_signal(signal.SIGCONT)
            assert frozen.process.wait(timeout=60) == 1
            assert proxy.writes(cluster.namespace) == []
            assert cluster.writes(USER) == before
            assert _written_by_us(cluster.job("support-tune-1")) == _written_by_us(job)
            assert holder(cluster) == standby.name
            assert any("LeaseLost" in entry.get("exception", "") for entry in frozen.log())


def _written_by_us(job: Raw) -> list[Any]:
    """Without its status and version, which the Job controller changes."""
    return [job["spec"], *(job["metadata"][name] for name in ("uid", "labels", "annotations", "ownerReferences"))]


class Freeze:
    """Freezes the operator right before the first event of a resource, so before it creates a Job."""

    def __init__(self, operator: OperatorProcess, namespace: str) -> None:
        self._operator, self._place = operator, [namespace, "finetunejobs", "support"]
        self.signalled: float | None = None
        """When it was stopped first, by the monotonic clock."""

    async def __call__(self, call: Call, forward: Forward) -> Answer:
        answer = await forward()
        if call.place == self._place:
            self.signalled = self.signalled or time.monotonic()
            self._operator.process.send_signal(signal.SIGSTOP)
        return answer
