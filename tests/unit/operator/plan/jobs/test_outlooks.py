"""Phase, reason and message of each state of a job."""

from __future__ import annotations

from tests.unit.operator.plan.jobs.support import begun
from tests.unit.operator.plan.world import (
    TUNED,
    Cluster,
    condition,
    fine_tune_job,
    running,
    tune,
)
from tunesmith_operator.plan.types import Reference


def test_a_job_without_failures_is_pending_preparing_running_and_succeeded():
    cluster = Cluster(fine_tune_job())
    phases = []
    cluster.reconcile()
    phases.append(cluster.status["phase"])
    for states in ({"fetch": running()}, {"fetch": TUNED["fetch"], "train": running()}):
        cluster.start_pod("support-tune-1", "Pending", states)
        cluster.reconcile(after=30)
        phases.append(cluster.status["phase"])
    tune(cluster)
    cluster.reconcile(after=30)
    phases.append(cluster.status["phase"])
    assert phases == ["Pending", "Preparing", "Running", "Succeeded"]


def test_a_trouble_that_is_over_leaves_the_status():
    cluster = begun()
    pod = cluster.start_pod("support-tune-1", conditions=[condition("PodScheduled", False, "Unschedulable", "0/1")])
    cluster.settle()
    assert cluster.status["lastFailure"]["class"] == "Unschedulable"
    pod["status"]["conditions"] = []
    pod["status"]["initContainerStatuses"][0]["state"] = running()
    cluster.settle()
    assert "lastFailure" not in cluster.status


def test_a_job_that_waits_in_vain_is_stalled():
    failed = fine_tune_job("first")
    failed["status"] = {"phase": "Failed", "reason": "BadRow"}
    cluster = Cluster(fine_tune_job(model={"fineTuneJob": {"name": "first"}}))
    cluster.others[Reference("FineTuneJob", "first")] = failed
    cluster.settle()
    assert cluster.status["message"].startswith(
        "waiting for FineTuneJob first, which has failed (BadRow): see its status"
    )
    assert "create it again or name another model" in cluster.status["message"]
    assert cluster.condition("Stalled")["status"] == "True"
    assert cluster.condition("Reconciling")["status"] == "False"
