"""What a plan still does after a job has ended."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.operator.plan.jobs.support import begun
from tests.unit.operator.plan.world import (
    TUNED,
    fine_tune_job,
    running,
    tune,
    with_spec,
)
from tunesmith_operator.plan.types import Key


def test_a_finished_job_never_runs_again_even_if_its_children_are_deleted():
    cluster = begun()
    tune(cluster)
    cluster.settle()
    cluster.remove("support-tune-1")
    plan = cluster.reconcile(after=100)
    assert plan.create == ()
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["children"] == []
    assert cluster.reconcile().is_empty


def test_a_failed_job_is_reconciling_until_no_job_may_run():
    cluster = begun(fine_tune_job(deadline="1h"))
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    cluster.settle()
    cluster.now += timedelta(hours=1)
    job = cluster.jobs["support-tune-1"]
    cluster.reconcile()
    assert cluster.condition("Reconciling")["status"] == "True"
    cluster.jobs["support-tune-1"] = job  # the operator died before it deleted the Job
    plan = cluster.reconcile()
    assert plan.delete == (Key("Job", "support-tune-1"),)
    cluster.settle()
    assert cluster.condition("Reconciling")["status"] == "False"
    assert cluster.condition("Stalled")["status"] == "True"


def test_after_its_ttl_the_children_are_deleted_and_the_resource_stays():
    cluster = begun(fine_tune_job(ttlAfterFinished="1h"))
    tune(cluster)
    cluster.settle()
    assert cluster.plans[-1].requeue_after == pytest.approx(3600)
    assert cluster.reconcile(after=3599).is_empty
    plan = cluster.reconcile(after=1)
    assert plan.delete == (Key("Job", "support-tune-1"),)
    assert cluster.status["phase"] == "Succeeded"
    cluster.settle()
    assert cluster.status["children"] == []


def test_a_ttl_set_after_completion_takes_effect():
    cluster = begun()
    tune(cluster)
    cluster.settle()
    cluster.resource = with_spec(cluster.resource, ttlAfterFinished="1m")
    cluster.reconcile(after=10)
    assert cluster.status["observedGeneration"] == 2
    assert {condition["observedGeneration"] for condition in cluster.status["conditions"]} == {2}
    cluster.reconcile(after=60)
    assert cluster.jobs == {}
