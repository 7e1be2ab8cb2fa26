"""Deadlines, and when a job is reconciled without an event."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.operator.plan.jobs.support import begun
from tests.unit.operator.plan.world import (
    TUNED,
    condition,
    fine_tune_job,
    running,
)


def test_the_deadline_counts_from_the_first_start():
    cluster = begun(fine_tune_job(deadline="1h"))
    cluster.now += timedelta(hours=5)
    cluster.settle()
    assert cluster.status["phase"] == "Pending"
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    cluster.settle()
    assert cluster.plans[-1].requeue_after == pytest.approx(3600)
    cluster.reconcile(after=3600)
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "DeadlineExceeded")
    assert cluster.jobs == {}


def test_the_pending_deadline_ends_a_wait_with_its_cause():
    cluster = begun(fine_tune_job(pendingDeadline="10m", resources={"accelerator": "nvidia"}))
    lack = condition("PodScheduled", False, "Unschedulable", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    pod = cluster.start_pod("support-tune-1", conditions=[lack])
    del pod["status"]["startTime"]
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "Unschedulable")
    assert "nvidia.com/gpu" in cluster.status["waitingFor"]
    cluster.reconcile(after=600)
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "DeadlineExceeded")
    assert "no node has enough nvidia.com/gpu" in cluster.status["message"]
