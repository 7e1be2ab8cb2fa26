"""Which attempts a job creates, keeps and deletes."""

from __future__ import annotations

import pytest

from tests.unit.operator.plan.jobs.support import begun
from tests.unit.operator.plan.world import (
    CONFIG,
    START,
    TUNED,
    Cluster,
    fine_tune_job,
    running,
    tune,
    tuned,
    with_spec,
)
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Key, Reference


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(fine_tune_job())


def test_a_new_job_creates_its_first_attempt(cluster):
    plan = cluster.reconcile()
    assert [job["metadata"]["name"] for job in plan.create] == ["support-tune-1"]
    assert cluster.status["phase"] == "Pending"
    assert cluster.status["attempt"] == 1
    assert cluster.status["observedGeneration"] == 1
    assert cluster.status["children"] == [{"kind": "Job", "name": "support-tune-1"}]
    assert cluster.condition("Reconciling")["status"] == "True"


def test_a_second_reconcile_of_the_same_state_writes_nothing(cluster):
    cluster.reconcile()
    assert cluster.reconcile().is_empty
    assert cluster.reconcile(after=2).is_empty


def test_an_active_attempt_continues_when_its_reference_is_deleted():
    cluster = Cluster(fine_tune_job(model={"fineTuneJob": {"name": "first"}}))
    cluster.others[Reference("FineTuneJob", "first")] = tuned("first")
    cluster.settle()
    cluster.others.clear()
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    cluster.settle()
    assert cluster.status["phase"] == "Running"


def test_suspend_stops_the_pods_and_resume_is_a_new_attempt_that_does_not_count():
    cluster = begun(fine_tune_job(retries=0))
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    cluster.settle()
    cluster.resource = with_spec(cluster.resource, suspend=True)
    plan = cluster.reconcile()
    assert plan.delete == (Key("Job", "support-tune-1"),)
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Suspended", "Suspended")
    cluster.settle()
    assert cluster.status["children"] == []
    cluster.resource = with_spec(cluster.resource, suspend=False)
    cluster.settle()
    assert list(cluster.jobs) == ["support-tune-2"]
    assert "failures" not in cluster.status


def test_a_job_created_suspended_has_no_children():
    cluster = begun(fine_tune_job(suspend=True))
    assert cluster.jobs == {}
    assert cluster.status["phase"] == "Suspended"


def test_a_resource_that_is_being_deleted_gets_no_children(cluster):
    cluster.resource["metadata"]["deletionTimestamp"] = format_time(START)
    assert cluster.reconcile().is_empty


def test_a_field_that_this_version_does_not_support_is_refused_by_name():
    cluster = begun(fine_tune_job(export={"quantize": {"method": "awq"}}))
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "BadSpec")
    assert (
        "export.quantize: not available in this version. Hint: remove the block. Then delete"
        in cluster.status["message"]
    )
    assert cluster.jobs == {}


def test_code_of_a_model_runs_only_where_an_administrator_allows_it():
    cluster = begun(fine_tune_job(model={"uri": "hf://a/b", "trustRemoteCode": True}))
    assert cluster.status["reason"] == "BadSpec"
    assert "allowTrustRemoteCode" in cluster.status["message"]
    cluster.config = CONFIG.model_copy(update={"allow_trust_remote_code": True})
    cluster.settle()
    assert cluster.status["phase"] == "Pending"
    assert "lastFailure" not in cluster.status, "a refusal is forgotten when it is over"


def test_an_active_attempt_outlives_a_stricter_configuration():
    cluster = Cluster(fine_tune_job(model={"uri": "hf://a/b", "trustRemoteCode": True}))
    cluster.config = CONFIG.model_copy(update={"allow_trust_remote_code": True})
    cluster.settle()
    cluster.config = CONFIG
    tune(cluster)
    cluster.settle()
    assert cluster.status["phase"] == "Succeeded"


def test_a_local_file_is_refused_in_a_cluster():
    cluster = begun(fine_tune_job(model={"uri": "file:///models/a"}))
    assert "pods cannot read files of your machine" in cluster.status["message"]


def test_a_spec_that_the_types_refuse_is_a_condition_and_no_crash():
    cluster = begun(fine_tune_job(training={"epochs": -1}))
    assert cluster.status["reason"] == "BadSpec"
    assert "spec.training.epochs" in cluster.status["message"]


def test_a_foreign_job_with_the_name_is_left_alone(cluster):
    cluster.foreign.add(Key("Job", "support-tune-1"))
    cluster.settle()
    assert cluster.jobs == {}
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "NameConflict")
    assert cluster.plans[-1].requeue_after == pytest.approx(30)
    assert cluster.condition("Stalled")["status"] == "True"
    cluster.foreign.clear()
    cluster.settle()
    assert list(cluster.jobs) == ["support-tune-1"]
    assert "lastFailure" not in cluster.status


def test_it_waits_for_the_deletion_of_a_former_resources_job(cluster):
    cluster.foreign.add(Key("Job", "support-tune-1"))
    cluster.former.add(Key("Job", "support-tune-1"))
    cluster.settle()
    assert cluster.jobs == {}
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Waiting", "Stopping")
    assert cluster.condition("Reconciling")["status"] == "True"
    assert cluster.plans[-1].requeue_after == pytest.approx(5)
    assert "lastFailure" not in cluster.status


def test_a_rejected_job_is_created_again_under_the_same_name(cluster):
    cluster.refused[Key("Job", "support-tune-1")] = 'jobs.batch "x" is forbidden: exceeded quota: count/jobs.batch=1'
    cluster.settle()
    assert cluster.jobs == {}
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "QuotaExceeded")
    assert cluster.plans[-1].requeue_after == pytest.approx(30)
    cluster.refused.clear()
    cluster.settle()
    assert list(cluster.jobs) == ["support-tune-1"]
    assert "lastFailure" not in cluster.status
