"""Attempts: numbers, counted failures, backoff."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.operator.plan.jobs.support import begun
from tests.unit.operator.plan.world import (
    TUNED,
    Cluster,
    condition,
    ended,
    failed_report,
    fine_tune_job,
    report,
    running,
)
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import EventType


def oom(cluster: Cluster, job: str) -> None:
    cluster.fail(job, {"fetch": TUNED["fetch"], "train": ended(137, reason="OOMKilled")})


def test_a_transient_failure_is_retried_after_a_backoff():
    cluster = begun()
    oom(cluster, "support-tune-1")
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "BackOff")
    assert cluster.status["lastFailure"]["class"] == "OOMKilled"
    assert cluster.status["failures"] == 1
    assert cluster.plans[-1].requeue_after == pytest.approx(10)
    assert cluster.reconcile(after=9).is_empty
    cluster.reconcile(after=1)
    assert "support-tune-2" in cluster.jobs
    assert cluster.status["attempt"] == 2
    assert cluster.jobs["support-tune-2"]["metadata"]["annotations"]["tunesmith.dev/failures"] == "1"
    assert cluster.status["lastFailure"]["class"] == "OOMKilled"


def test_the_backoff_doubles_until_no_retries_are_left():
    cluster = begun(fine_tune_job(retries=2))
    pauses = []
    for attempt in (1, 2):
        oom(cluster, f"support-tune-{attempt}")
        cluster.settle()
        pauses.append(cluster.plans[-1].requeue_after)
        cluster.reconcile(after=pauses[-1])
        cluster.settle()
    oom(cluster, "support-tune-3")
    cluster.settle()
    assert pauses == [pytest.approx(10), pytest.approx(20)]
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "OOMKilled")
    assert "no retries are left of 2" in cluster.status["message"]
    assert cluster.condition("Succeeded")["status"] == "False"
    assert cluster.condition("Stalled")["status"] == "True"
    assert cluster.reconcile(after=3600).is_empty


def test_no_backoff_is_longer_than_ten_minutes():
    cluster = begun(fine_tune_job(retries=100))
    cluster.jobs["support-tune-1"]["metadata"]["annotations"]["tunesmith.dev/failures"] = "60"
    oom(cluster, "support-tune-1")
    cluster.settle()
    assert cluster.plans[-1].requeue_after == pytest.approx(600)


def test_a_bad_row_is_not_retried_and_its_line_is_named():
    cluster = begun()
    bad = ended(65, failed_report("train", "BadRow", "s3://data/train.jsonl line 17: no field messages"))
    cluster.fail("support-tune-1", {"fetch": TUNED["fetch"], "train": bad})
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "BadRow")
    assert "line 17" in cluster.status["message"]
    assert cluster.status["lastFailure"]["exitCode"] == 65
    assert cluster.status["lastFailure"]["container"] == "train"
    assert [event.type for event in cluster.events] == [EventType.NORMAL, EventType.WARNING]


def test_a_preemption_does_not_count_as_a_retry():
    cluster = begun(fine_tune_job(retries=0))
    for attempt in (1, 2, 3):
        name = f"support-tune-{attempt}"
        cluster.now += timedelta(minutes=5)
        cluster.fail(name, {"fetch": TUNED["fetch"], "train": ended(75, report("train", "Preempted"))})
        cluster.settle()
        cluster.reconcile(after=2)
    assert "support-tune-4" in cluster.jobs
    assert "failures" not in cluster.status


def test_the_attempt_after_a_short_life_waits_longer():
    cluster = begun()
    cluster.now += timedelta(seconds=1)
    lost = condition("DisruptionTarget", True, "DeletionByTaintManager", "node is gone")
    cluster.fail("support-tune-1", {"fetch": ended(137)}, conditions=[lost])
    cluster.settle()
    assert cluster.status["lastFailure"]["class"] == "NodeLost"
    assert cluster.plans[-1].requeue_after == pytest.approx(20)


def test_a_new_attempt_waits_until_the_old_pod_has_stopped():
    cluster = begun()
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    cluster.settle()
    del cluster.jobs["support-tune-1"]
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "Stopping")
    assert cluster.jobs == {}
    cluster.pods.clear()
    cluster.settle()
    assert list(cluster.jobs) == ["support-tune-2"]


def test_a_pod_on_a_lost_node_does_not_block_the_next_attempt_indefinitely():
    cluster = begun()
    pod = cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    pod["metadata"]["deletionTimestamp"] = format_time(cluster.now)
    cluster.end_job("support-tune-1", "FailureTarget")
    cluster.settle()
    assert cluster.status["phase"] == "Running"
    assert cluster.plans[-1].requeue_after == pytest.approx(15)
    cluster.reconcile(after=31)
    assert cluster.status["lastFailure"]["class"] == "NodeLost"
    assert "support-tune-2" in cluster.jobs


def test_a_deleted_job_is_followed_by_a_new_attempt_with_a_new_name():
    cluster = begun()
    cluster.remove("support-tune-1")
    cluster.settle()
    assert list(cluster.jobs) == ["support-tune-2"]


def test_counted_failures_survive_the_deletion_of_the_failed_job():
    cluster = begun(fine_tune_job(retries=1))
    oom(cluster, "support-tune-1")
    cluster.settle()
    cluster.remove("support-tune-1")
    cluster.settle()
    oom(cluster, "support-tune-2")
    cluster.settle()
    assert cluster.status["phase"] == "Failed"


def test_only_the_newest_jobs_are_kept():
    cluster = begun()
    for attempt in range(1, 5):
        cluster.now += timedelta(minutes=5)
        cluster.fail(f"support-tune-{attempt}", {"train": ended(75, report("train", "Preempted"))})
        cluster.settle()
        cluster.reconcile(after=60)
    assert list(cluster.jobs) == ["support-tune-3", "support-tune-4", "support-tune-5"]
