from __future__ import annotations

import json
from datetime import timedelta

import pytest

from tests.unit.operator.plan.world import (
    CONFIG,
    START,
    TUNED,
    Cluster,
    condition,
    ended,
    failed_report,
    fine_tune_job,
    report,
    running,
    tune,
    tuned,
    with_spec,
)
from tunesmith_api.run import ProgressReport
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import EventType, Key, Progress, Reference


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(fine_tune_job())


def begun(thing=None) -> Cluster:
    """A job whose first attempt is made."""
    cluster = Cluster(thing or fine_tune_job())
    cluster.begin()
    return cluster


def oom(cluster: Cluster, job: str) -> None:
    cluster.fail(job, {"fetch": TUNED["fetch"], "train": ended(137, reason="OOMKilled")})


def test_a_new_job_gets_its_first_attempt_and_says_so(cluster):
    plan = cluster.reconcile()
    assert [job["metadata"]["name"] for job in plan.create] == ["support-tune-1"]
    assert cluster.status["phase"] == "Pending"
    assert cluster.status["attempt"] == 1
    assert cluster.status["observedGeneration"] == 1
    assert cluster.status["children"] == [{"kind": "Job", "name": "support-tune-1"}]
    assert cluster.condition("Reconciling")["status"] == "True"


def test_a_second_reconcile_of_the_same_state_asks_for_nothing(cluster):
    cluster.reconcile()
    assert cluster.reconcile().is_empty
    assert cluster.reconcile(after=2).is_empty


def test_a_good_life_has_the_phases_people_expect(cluster):
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


def test_a_good_life_costs_five_writes_and_three_events():
    cluster = begun()
    cluster.start_pod("support-tune-1")
    cluster.settle()
    for states in ({"fetch": running()}, {"fetch": TUNED["fetch"], "train": running()}):
        cluster.start_pod("support-tune-1", "Pending", states)
        cluster.settle()
    tune(cluster)
    cluster.settle()
    assert cluster.writes == 5
    assert [event.reason for event in cluster.events] == ["WaitingForPod", "Running", "Completed"]


def test_a_job_that_finishes_at_once_costs_three_writes():
    cluster = begun()
    tune(cluster)
    cluster.settle()
    assert cluster.writes == 3


def test_a_finished_job_tells_what_it_made():
    status = tuned()["status"]
    assert status["phase"] == "Succeeded"
    assert status["reason"] == "Completed"
    assert [artifact["name"] for artifact in status["artifacts"]] == ["adapter", "merged"]
    assert status["runUri"] == "s3://store/run"
    assert status["rows"] == {"kept": 9}
    assert status["metrics"]["steps"] == 12
    assert status["model"] == {"uri": "s3://store/m/1", "digest": "d0"}
    assert status["progress"]["percent"] == 100
    assert status["completionTime"]
    assert {one["type"]: one["status"] for one in status["conditions"]} == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "Succeeded": "True",
    }


def test_adopted_work_is_named_as_such():
    cluster = begun()
    adopted = {verb: ended(message=report(verb, "Adopted", runUri="s3://r")) for verb in ("fetch", "train", "export")}
    cluster.start_pod("support-tune-1", "Succeeded", adopted)
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Succeeded", "AdoptedExisting")


def test_a_finished_job_is_never_run_again_though_its_job_is_deleted():
    cluster = begun()
    tune(cluster)
    cluster.settle()
    cluster.remove("support-tune-1")
    plan = cluster.reconcile(after=100)
    assert plan.create == ()
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["children"] == []
    assert cluster.reconcile().is_empty


def test_it_waits_for_the_job_that_makes_its_model():
    cluster = begun(fine_tune_job(model={"fineTuneJob": {"name": "first"}}))
    assert cluster.jobs == {}
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Waiting", "WaitingForModel")
    assert "FineTuneJob first" in cluster.status["waitingFor"]
    cluster.others[Reference("FineTuneJob", "first")] = tuned("first")
    cluster.settle()
    run = json.loads(cluster.jobs["support-tune-1"]["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/run"])
    assert run["models"]["base"] == {"uri": "s3://store/run/merged", "digest": "d2", "trustRemoteCode": False}
    assert cluster.status["waitingFor"].startswith("the pod to be scheduled")


def test_an_attempt_under_way_does_not_mind_that_its_reference_goes():
    cluster = Cluster(fine_tune_job(model={"fineTuneJob": {"name": "first"}}))
    cluster.others[Reference("FineTuneJob", "first")] = tuned("first")
    cluster.settle()
    cluster.others.clear()
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    cluster.settle()
    assert cluster.status["phase"] == "Running"


def test_an_adapter_alone_cannot_be_tuned_further():
    first = tuned("first")
    first["status"]["artifacts"] = first["status"]["artifacts"][:1]
    cluster = Cluster(fine_tune_job(model={"fineTuneJob": {"name": "first"}}))
    cluster.others[Reference("FineTuneJob", "first")] = first
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "BadSpec")
    assert "export.merge: true" in cluster.status["message"]


def test_a_failure_that_may_pass_is_tried_again_after_a_pause():
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


def test_pauses_double_and_retries_end():
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


def test_no_pause_is_longer_than_ten_minutes():
    cluster = begun(fine_tune_job(retries=100))
    cluster.jobs["support-tune-1"]["metadata"]["annotations"]["tunesmith.dev/failures"] = "60"
    oom(cluster, "support-tune-1")
    cluster.settle()
    assert cluster.plans[-1].requeue_after == pytest.approx(600)


def test_a_bad_row_is_not_tried_again_and_its_line_is_named():
    cluster = begun()
    bad = ended(65, failed_report("train", "BadRow", "s3://data/train.jsonl line 17: no field messages"))
    cluster.fail("support-tune-1", {"fetch": TUNED["fetch"], "train": bad})
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "BadRow")
    assert "line 17" in cluster.status["message"]
    assert cluster.status["lastFailure"]["exitCode"] == 65
    assert cluster.status["lastFailure"]["container"] == "train"
    assert [event.type for event in cluster.events] == [EventType.NORMAL, EventType.WARNING]


def test_a_preempted_pod_goes_on_without_counting():
    cluster = begun(fine_tune_job(retries=0))
    for attempt in (1, 2, 3):
        name = f"support-tune-{attempt}"
        cluster.now += timedelta(minutes=5)
        cluster.fail(name, {"fetch": TUNED["fetch"], "train": ended(75, report("train", "Preempted"))})
        cluster.settle()
        cluster.reconcile(after=2)
    assert "support-tune-4" in cluster.jobs
    assert "failures" not in cluster.status


def test_an_attempt_that_died_young_is_not_followed_at_once():
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


def test_a_pod_on_a_dead_node_does_not_hold_the_job_for_ever():
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


def test_counted_failures_survive_that_the_failed_job_is_deleted():
    cluster = begun(fine_tune_job(retries=1))
    oom(cluster, "support-tune-1")
    cluster.settle()
    cluster.remove("support-tune-1")
    cluster.settle()
    oom(cluster, "support-tune-2")
    cluster.settle()
    assert cluster.status["phase"] == "Failed"


def test_old_attempts_are_tidied_up():
    cluster = begun()
    for attempt in range(1, 5):
        cluster.now += timedelta(minutes=5)
        cluster.fail(f"support-tune-{attempt}", {"train": ended(75, report("train", "Preempted"))})
        cluster.settle()
        cluster.reconcile(after=60)
    assert list(cluster.jobs) == ["support-tune-3", "support-tune-4", "support-tune-5"]


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


def test_a_job_created_suspended_makes_nothing():
    cluster = begun(fine_tune_job(suspend=True))
    assert cluster.jobs == {}
    assert cluster.status["phase"] == "Suspended"


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


def test_a_failed_job_is_reconciling_until_nothing_is_left_at_work():
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


def test_the_pending_deadline_ends_a_wait_and_says_what_was_lacking():
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


def test_a_trouble_that_passed_is_forgotten():
    cluster = begun()
    pod = cluster.start_pod("support-tune-1", conditions=[condition("PodScheduled", False, "Unschedulable", "0/1")])
    cluster.settle()
    assert cluster.status["lastFailure"]["class"] == "Unschedulable"
    pod["status"]["conditions"] = []
    pod["status"]["initContainerStatuses"][0]["state"] = running()
    cluster.settle()
    assert "lastFailure" not in cluster.status


def test_after_its_ttl_the_children_go_and_the_resource_stays():
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


def test_a_ttl_set_later_is_heeded_and_the_generation_kept_current():
    cluster = begun()
    tune(cluster)
    cluster.settle()
    cluster.resource = with_spec(cluster.resource, ttlAfterFinished="1m")
    cluster.reconcile(after=10)
    assert cluster.status["observedGeneration"] == 2
    assert {one["observedGeneration"] for one in cluster.status["conditions"]} == {2}
    cluster.reconcile(after=60)
    assert cluster.jobs == {}


def test_a_resource_on_its_way_out_gets_nothing_new(cluster):
    cluster.resource["metadata"]["deletionTimestamp"] = format_time(START)
    assert cluster.reconcile().is_empty


def test_what_this_version_cannot_do_is_refused_by_name():
    cluster = begun(fine_tune_job(parallelism={"tensorParallel": 4}))
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "BadSpec")
    assert "parallelism.tensorParallel 4: not available in this version; remove it" in cluster.status["message"]
    assert cluster.jobs == {}


def test_code_of_a_model_runs_only_where_an_administrator_allows_it():
    cluster = begun(fine_tune_job(model={"uri": "hf://a/b", "trustRemoteCode": True}))
    assert cluster.status["reason"] == "BadSpec"
    assert "allowTrustRemoteCode" in cluster.status["message"]
    cluster.config = CONFIG.model_copy(update={"allow_trust_remote_code": True})
    cluster.settle()
    assert cluster.status["phase"] == "Pending"
    assert "lastFailure" not in cluster.status, "a refusal is forgotten when it is over"


def test_an_attempt_under_way_outlives_a_stricter_operator():
    cluster = Cluster(fine_tune_job(model={"uri": "hf://a/b", "trustRemoteCode": True}))
    cluster.config = CONFIG.model_copy(update={"allow_trust_remote_code": True})
    cluster.settle()
    cluster.config = CONFIG
    tune(cluster)
    cluster.settle()
    assert cluster.status["phase"] == "Succeeded"


def test_a_local_file_is_refused_in_a_cluster():
    cluster = begun(fine_tune_job(model={"uri": "file:///models/a"}))
    assert "pods do not see files of your machine" in cluster.status["message"]


def test_a_spec_that_the_types_refuse_is_a_condition_and_no_crash():
    cluster = begun(fine_tune_job(training={"epochs": -1}))
    assert cluster.status["reason"] == "BadSpec"
    assert "spec.training.epochs" in cluster.status["message"]


def test_somebody_elses_job_of_that_name_is_left_alone(cluster):
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


def test_the_job_of_a_deleted_resource_of_the_same_name_is_waited_for(cluster):
    cluster.foreign.add(Key("Job", "support-tune-1"))
    cluster.former.add(Key("Job", "support-tune-1"))
    cluster.settle()
    assert cluster.jobs == {}
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Waiting", "Stopping")
    assert cluster.condition("Reconciling")["status"] == "True"
    assert cluster.plans[-1].requeue_after == pytest.approx(5)
    assert "lastFailure" not in cluster.status


def test_a_model_that_will_not_come_is_no_progress():
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


def test_a_refused_job_is_tried_again_under_the_same_name(cluster):
    cluster.refused[Key("Job", "support-tune-1")] = 'jobs.batch "x" is forbidden: exceeded quota: count/jobs.batch=1'
    cluster.settle()
    assert cluster.jobs == {}
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "QuotaExceeded")
    assert cluster.plans[-1].requeue_after == pytest.approx(30)
    cluster.refused.clear()
    cluster.settle()
    assert list(cluster.jobs) == ["support-tune-1"]
    assert "lastFailure" not in cluster.status


def test_a_pod_that_left_no_report_is_no_success():
    cluster = begun(fine_tune_job(retries=0))
    cluster.start_pod("support-tune-1", "Succeeded", {"fetch": ended(), "train": ended(), "export": ended()})
    cluster.settle()
    assert cluster.status["phase"] == "Running"
    cluster.end_job("support-tune-1", "Complete")
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "ProcessError")
    assert "left no report" in cluster.status["message"]


def test_a_result_that_was_lost_with_its_pod_is_found_again_by_a_new_attempt():
    cluster = begun()
    cluster.end_job("support-tune-1", "Complete")
    cluster.settle()
    cluster.reconcile(after=60)
    assert "support-tune-2" in cluster.jobs
    assert cluster.status["phase"] == "Pending"


def pushed(cluster: Cluster, step: int, stage: str = "train", **more) -> None:
    report = ProgressReport(stage=stage, step=step, total_steps=40, loss=2.0 / step, **more)
    cluster.progress["support-tune-1"] = Progress(report, cluster.now)


def test_progress_reaches_status_at_most_every_five_seconds():
    cluster = begun()
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    pushed(cluster, 1)
    cluster.settle()
    assert cluster.status["progress"] == {
        "stage": "train",
        "step": 1,
        "totalSteps": 40,
        "percent": 2,
        "loss": 2.0,
        "updated": format_time(START),
    }
    writes = cluster.writes
    for step in (2, 3, 4):
        cluster.now += timedelta(seconds=1)
        pushed(cluster, step)
        assert cluster.reconcile().status is None
    assert cluster.plans[-1].requeue_after == pytest.approx(2)
    cluster.reconcile(after=2)
    assert cluster.status["progress"]["step"] == 4
    assert cluster.writes == writes + 1


def test_a_new_stage_is_shown_at_once():
    cluster = begun()
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    pushed(cluster, 1)
    cluster.settle()
    cluster.now += timedelta(seconds=1)
    pushed(cluster, 1, stage="export")
    cluster.settle()
    assert cluster.status["progress"]["stage"] == "export"


def test_a_restarted_operator_keeps_the_progress_it_has_not_heard_of():
    cluster = begun()
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    pushed(cluster, 7)
    cluster.settle()
    cluster.progress.clear()
    assert cluster.reconcile(after=60).is_empty
    assert cluster.status["progress"]["step"] == 7


def test_a_pushed_checkpoint_is_shown():
    cluster = begun()
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    pushed(cluster, 7, last_checkpoint={"uri": "s3://store/run/checkpoints/5", "step": 5}, resumed_from_step=3)
    cluster.settle()
    assert cluster.status["lastCheckpoint"]["step"] == 5
    assert cluster.status["resumedFromStep"] == 3


def test_an_attempt_that_has_told_of_nothing_is_not_said_to_have_resumed_where_the_one_before_it_did():
    cluster = begun()
    stopped = report("train", "Preempted", resumedFromStep=3)
    cluster.fail("support-tune-1", {"fetch": TUNED["fetch"], "train": ended(75, stopped)})
    cluster.settle()
    assert cluster.status["resumedFromStep"] == 3
    cluster.reconcile(after=60)
    cluster.settle()
    assert cluster.status["attempt"] == 2
    assert "resumedFromStep" not in cluster.status


def test_the_checkpoint_of_a_preempted_attempt_is_kept():
    cluster = begun()
    told = report("train", "Preempted", lastCheckpoint={"uri": "s3://store/run/checkpoints/9", "step": 9})
    cluster.fail("support-tune-1", {"fetch": TUNED["fetch"], "train": ended(75, told)})
    cluster.settle()
    cluster.reconcile(after=60)
    assert "support-tune-2" in cluster.jobs
    assert cluster.status["lastCheckpoint"]["step"] == 9


def test_a_job_that_a_queue_holds_is_queued():
    cluster = begun()
    cluster.jobs["support-tune-1"]["spec"]["suspend"] = True
    cluster.settle()
    assert cluster.status["phase"] == "Queued"
