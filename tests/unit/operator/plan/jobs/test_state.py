"""The state of an attempt, by its Job and pods."""

from __future__ import annotations

from tests.unit.operator.plan.jobs.support import begun
from tests.unit.operator.plan.world import (
    ended,
    fine_tune_job,
)


def test_a_pod_without_a_report_is_no_success():
    cluster = begun(fine_tune_job(retries=0))
    cluster.start_pod("support-tune-1", "Succeeded", {"fetch": ended(), "train": ended(), "export": ended()})
    cluster.settle()
    assert cluster.status["phase"] == "Running"
    cluster.end_job("support-tune-1", "Complete")
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "ProcessError")
    assert "left no report" in cluster.status["message"]


def test_a_result_lost_with_its_pod_is_found_by_a_new_attempt():
    cluster = begun()
    cluster.end_job("support-tune-1", "Complete")
    cluster.settle()
    cluster.reconcile(after=60)
    assert "support-tune-2" in cluster.jobs
    assert cluster.status["phase"] == "Pending"


def test_a_suspended_job_is_queued():
    cluster = begun()
    cluster.jobs["support-tune-1"]["spec"]["suspend"] = True
    cluster.settle()
    assert cluster.status["phase"] == "Queued"
