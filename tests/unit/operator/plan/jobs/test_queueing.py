from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.operator.plan.world import (
    CONFIG,
    TUNED,
    Cluster,
    condition,
    ended,
    eval_job,
    fine_tune_job,
    report,
    running,
    tune,
    with_spec,
)
from tunesmith_operator.plan.config import Kueue
from tunesmith_operator.plan.jobs.queueing import JOB_UID_LABEL, QUEUE_LABEL
from tunesmith_operator.plan.types import Raw

JOB = "support-tune-1"
READING = CONFIG.model_copy(update={"kueue": Kueue(enabled=True)})


def queued(config=CONFIG, **spec) -> Cluster:
    """A FineTuneJob whose first Job waits in a queue."""
    cluster = Cluster(fine_tune_job(queueName="gpus", **spec), config=config)
    cluster.settle()
    return cluster


def trains(cluster: Cluster, job: str = JOB) -> None:
    cluster.start_pod(job, "Pending", {"fetch": TUNED["fetch"], "train": running()})


def workload(job: Raw, *conditions: Raw, **more) -> Raw:
    """What Kueue keeps for a Job."""
    labels = {JOB_UID_LABEL: job["metadata"]["uid"]}
    return {
        "metadata": {"labels": labels},
        "status": {"conditions": list(conditions), **more.pop("status", {})},
        **more,
    }


def kueue_reports(cluster: Cluster, *conditions: Raw, **more) -> None:
    cluster.workloads = [workload(cluster.jobs[JOB], *conditions, **more)]
    cluster.settle()


def test_a_job_is_created_suspended_with_the_label_of_its_queue():
    job = queued().jobs[JOB]
    assert job["metadata"]["labels"][QUEUE_LABEL] == "gpus"
    assert job["spec"]["suspend"] is True
    assert job["spec"]["podReplacementPolicy"] == "Failed", "who was stopped saves its state before another begins"


def test_a_job_without_a_queue_is_not_suspended():
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    assert QUEUE_LABEL not in cluster.jobs[JOB]["metadata"]["labels"]
    assert not {"suspend", "podReplacementPolicy"} & set(cluster.jobs[JOB]["spec"])


def test_both_jobs_of_an_evaluation_queue():
    cluster = Cluster(eval_job(queueName="gpus", baseline={"uri": "s3://models/b"}))
    cluster.settle()
    assert {job["metadata"]["labels"][QUEUE_LABEL] for job in cluster.jobs.values()} == {"gpus"}
    assert len(cluster.jobs) == 2
    assert cluster.status["phase"] == "Queued"


def test_it_is_queued_from_the_first_write_on_and_names_the_queue():
    cluster = Cluster(fine_tune_job(queueName="gpus"))
    cluster.reconcile()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Queued", "Queued")
    assert cluster.status["waitingFor"] == "LocalQueue gpus to admit it"
    assert cluster.condition("Reconciling")["status"] == "True"
    assert cluster.reconcile().is_empty


def test_the_reason_of_the_queue_is_shown():
    cluster = queued(READING)
    assert cluster.plans[-1].requeue_after == pytest.approx(2), "it is reconciled again soon"
    lack = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor gpu, 1 more needed"
    kueue_reports(cluster, condition("QuotaReserved", False, "Pending", lack))
    assert cluster.status["waitingFor"] == f"LocalQueue gpus: {lack}"
    assert cluster.status["message"] == f"waiting for LocalQueue gpus: {lack}"
    assert cluster.plans[-1].requeue_after == pytest.approx(15)


def test_a_queue_whose_workloads_cannot_be_read_is_named_with_the_problem():
    cluster = queued(READING)
    cluster.workloads_problem = "the operator may not list workloads.kueue.x-k8s.io"
    cluster.settle()
    expected = f"LocalQueue gpus to admit it (the reason is unknown: {cluster.workloads_problem})"
    assert cluster.status["waitingFor"] == expected
    assert cluster.status["message"] == f"waiting for {expected}"


def test_workloads_are_polled_less_often_the_longer_a_job_waits():
    cluster = queued(READING)
    cluster.hold(JOB)
    kueue_reports(cluster, condition("QuotaReserved", False, "Pending", "no quota"))
    cluster.reconcile(after=3600)
    assert cluster.plans[-1].requeue_after == pytest.approx(900)


def test_admission_checks_that_are_pending_are_named():
    cluster = queued(READING)
    checks = {"status": {"admissionChecks": [{"name": "nodes", "state": "Pending", "message": "asks for nodes"}]}}
    kueue_reports(
        cluster, condition("QuotaReserved", True, "QuotaReserved", "Quota reserved in ClusterQueue all"), **checks
    )
    assert "admission checks to pass: nodes (asks for nodes)" in cluster.status["waitingFor"]


def test_a_deactivated_workload_is_reported_with_the_fix():
    cluster = queued(READING)
    kueue_reports(
        cluster, condition("QuotaReserved", False, "Pending", "The workload is deactivated"), spec={"active": False}
    )
    assert "set spec.active of its Workload to true" in cluster.status["waitingFor"]


def test_a_job_that_is_suspended_by_hand_belongs_to_no_queue():
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    cluster.hold(JOB)
    cluster.settle()
    assert cluster.status["phase"] == "Queued"
    assert cluster.status["waitingFor"] == f"somebody to set spec.suspend of Job {JOB} to false: it belongs to no queue"


def test_an_admitted_job_starts():
    cluster = queued()
    cluster.now += timedelta(minutes=5)
    cluster.admit(JOB)
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "WaitingForPod")
    assert cluster.status["waitingFor"].startswith("the pod to be scheduled")
    tune(cluster)
    cluster.settle()
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["queuedSeconds"] == 300


def test_a_job_in_a_queue_costs_one_write_and_one_event_more():
    cluster = queued()
    cluster.admit(JOB)
    cluster.settle()
    for states in ({"fetch": running()}, {"fetch": TUNED["fetch"], "train": running()}):
        cluster.start_pod(JOB, "Pending", states)
        cluster.settle()
    tune(cluster)
    cluster.settle()
    assert cluster.writes == 6
    assert [event.reason for event in cluster.events] == ["Queued", "WaitingForPod", "Running", "Completed"]


def test_a_job_that_its_queue_stops_is_queued_again_and_does_not_count():
    cluster = queued(retries=0)
    cluster.admit(JOB)
    trains(cluster)
    cluster.settle()
    cluster.now += timedelta(minutes=10)
    cluster.hold(JOB)
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["attempt"]) == ("Queued", 1)
    assert "saves its state and stops" in cluster.status["message"]
    cluster.now += timedelta(minutes=1)
    cluster.stop_pods(JOB)
    cluster.settle()
    assert "saves its state" not in cluster.status["message"]
    assert cluster.status["preemptions"] == 1
    assert "failures" not in cluster.status
    assert cluster.status["attempts"][0]["outcome"] == "Preempted"
    assert list(cluster.jobs) == [JOB], "the Job is its queue's: it stays"


def test_it_names_the_job_that_preempted_it():
    cluster = queued(READING)
    cluster.admit(JOB)
    trains(cluster)
    cluster.settle()
    cluster.hold(JOB)
    cluster.stop_pods(JOB)
    evicted = condition("Evicted", True, "Preempted", "Preempted to accommodate a workload (UID: 7)")
    kueue_reports(cluster, evicted, condition("QuotaReserved", False, "Pending", "insufficient unused quota"))
    assert cluster.status["waitingFor"] == (
        "LocalQueue gpus: Preempted to accommodate a workload (UID: 7); insufficient unused quota"
    )


def test_a_workload_that_has_its_quota_although_its_job_is_stopped_is_read_again_soon():
    cluster = queued(READING)
    cluster.admit(JOB)
    trains(cluster)
    cluster.settle()
    cluster.hold(JOB)
    kueue_reports(cluster, condition("QuotaReserved", True, "QuotaReserved", "Quota reserved in ClusterQueue all"))
    assert cluster.status["waitingFor"] == "LocalQueue gpus to admit it"
    assert cluster.plans[-1].requeue_after == pytest.approx(2)


def test_a_readmitted_job_continues_the_same_attempt_with_a_new_pod():
    cluster = queued()
    for _ in range(3):
        cluster.admit(JOB)
        trains(cluster)
        cluster.settle()
        assert cluster.status["phase"] == "Running"
        cluster.now += timedelta(minutes=10)
        cluster.hold(JOB)
        cluster.stop_pods(JOB)
        cluster.settle()
        assert cluster.status["phase"] == "Queued"
        cluster.now += timedelta(minutes=10)
    cluster.admit(JOB)
    tune(cluster)
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["attempt"]) == ("Succeeded", 1)
    assert cluster.status["preemptions"] == 3
    outcomes = [(row["number"], row["outcome"]) for row in cluster.status["attempts"]]
    assert outcomes == [(1, "Preempted")] * 3 + [(1, "Succeeded")]


def test_a_pod_that_is_stopping_is_not_taken_for_the_new_pod():
    cluster = queued()
    cluster.admit(JOB)
    trains(cluster)
    cluster.settle()
    cluster.hold(JOB)
    cluster.settle()
    cluster.admit(JOB)
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "WaitingForPod")


def test_a_pod_on_a_lost_node_does_not_block_a_queued_job_indefinitely():
    """The Job controller waits for it before it makes another; the operator does so for half a minute."""
    cluster = queued()
    cluster.admit(JOB)
    trains(cluster)
    cluster.settle()
    cluster.hold(JOB)
    cluster.settle()
    cluster.admit(JOB)
    cluster.settle()
    cluster.reconcile(after=151)
    assert cluster.status["lastFailure"]["class"] == "NodeLost"
    assert "support-tune-2" in cluster.jobs
    assert "failures" not in cluster.status


def test_a_failed_attempt_in_a_queue_is_retried_by_a_new_queued_job():
    cluster = queued()
    cluster.admit(JOB)
    cluster.fail(JOB, {"fetch": TUNED["fetch"], "train": ended(137, reason="OOMKilled")})
    cluster.settle()
    cluster.reconcile(after=10)
    assert cluster.jobs["support-tune-2"]["spec"]["suspend"] is True
    assert (cluster.status["phase"], cluster.status["failures"]) == ("Queued", 1)
    assert cluster.status["lastFailure"]["class"] == "OOMKilled"


def test_a_run_that_succeeded_while_it_was_stopped_is_not_queued_again():
    cluster = queued()
    cluster.admit(JOB)
    trains(cluster)
    cluster.settle()
    cluster.hold(JOB)
    cluster.start_pod(JOB, "Succeeded", TUNED)
    cluster.settle()
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.jobs == {}, "its queue would let it start once more"


def test_suspend_removes_a_job_from_its_queue():
    cluster = queued()
    cluster.resource = with_spec(cluster.resource, suspend=True)
    cluster.settle()
    assert cluster.jobs == {}
    assert cluster.status["phase"] == "Suspended"
    cluster.resource = with_spec(cluster.resource, suspend=False)
    cluster.settle()
    assert list(cluster.jobs) == ["support-tune-2"]
    assert cluster.status["phase"] == "Queued"


def test_time_in_the_queue_does_not_count_towards_the_pending_deadline():
    cluster = queued(pendingDeadline="10m")
    cluster.reconcile(after=3600)
    assert cluster.status["phase"] == "Queued"
    cluster.jobs[JOB]["spec"]["suspend"] = False  # its controller has not noted it yet
    cluster.reconcile(after=1)
    assert cluster.status["phase"] == "Pending"
    cluster.admit(JOB)
    lack = condition("PodScheduled", False, "Unschedulable", "0/1 nodes are available: 1 Insufficient cpu.")
    pod = cluster.start_pod(JOB, conditions=[lack])
    del pod["status"]["startTime"]
    cluster.settle()
    cluster.reconcile(after=599)
    assert cluster.status["phase"] == "Pending"
    cluster.reconcile(after=1)
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "DeadlineExceeded")


def test_the_deadline_continues_in_the_queue_after_the_first_start():
    cluster = queued(deadline="1h")
    cluster.reconcile(after=7200)
    assert cluster.status["phase"] == "Queued"
    cluster.admit(JOB)
    trains(cluster)
    cluster.settle()
    cluster.hold(JOB)
    cluster.stop_pods(JOB)
    cluster.settle()
    assert cluster.plans[-1].requeue_after == pytest.approx(3600)
    cluster.reconcile(after=3600)
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "DeadlineExceeded")
    cluster.settle()
    assert cluster.jobs == {}


def test_the_checkpoint_that_a_preempted_pod_reports_is_shown():
    cluster = queued()
    cluster.admit(JOB)
    trains(cluster)
    cluster.settle()
    cluster.hold(JOB)
    payload = report("train", "Preempted", lastCheckpoint={"uri": "s3://store/run/checkpoints/9", "step": 9})
    gone = cluster.pods[f"{JOB}-x7k2p"]["metadata"]["deletionTimestamp"]
    pod = cluster.start_pod(JOB, "Failed", {"fetch": TUNED["fetch"], "train": ended(75, payload)})
    pod["metadata"]["deletionTimestamp"] = gone
    cluster.settle()
    assert cluster.status["phase"] == "Queued"
    assert cluster.status["lastCheckpoint"]["step"] == 9
