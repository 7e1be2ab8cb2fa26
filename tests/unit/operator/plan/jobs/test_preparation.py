"""Preparation: what needs no device runs before devices are requested."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.operator.plan.world import (
    CONFIG,
    START,
    TUNED,
    Cluster,
    condition,
    ended,
    eval_job,
    failed_report,
    fine_tune_job,
    report,
    running,
    waiting,
    with_spec,
)
from tunesmith_operator.plan.jobs.queueing import QUEUE_LABEL
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Key, Raw

GPU: Raw = {"resources": {"accelerator": "nvidia", "count": 8}}
MERGED: Raw = {"name": "merged", "uri": "s3://store/run/merged", "digest": "d2"}
ACCURACY: Raw = {"benchmark": "support-qa", "metric": "accuracy", "value": 0.9}
SCORED = report("evaluate", results=[ACCURACY])
PREPARE, TUNE = "support-prepare-1", "support-tune-1"
MODEL, BASE = "support-prepare-model-1", "support-prepare-base-1"
LACK = condition("PodScheduled", False, "Unschedulable", "0/1 nodes are available: 1 Insufficient cpu.")


def begun(**spec: Any) -> Cluster:
    """A FineTuneJob of devices whose first Job is made."""
    cluster = Cluster(fine_tune_job(**{**GPU, **spec}))
    cluster.settle()
    return cluster


def test_a_job_with_devices_is_prepared_by_a_pod_without_devices() -> None:
    cluster = begun()
    assert list(cluster.jobs) == [PREPARE]
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Preparing", "Preparing")
    cluster.prepare(PREPARE, runUri="s3://store/run", modelUri="s3://store/models/m", modelDigest="d1")
    cluster.settle()
    assert list(cluster.jobs) == [PREPARE, TUNE]
    assert (cluster.status["phase"], cluster.status["attempt"]) == ("Pending", 1)


def test_a_preparation_costs_two_writes_and_no_event() -> None:
    def life(**spec: Any) -> Cluster:
        job = Cluster(fine_tune_job(**spec))
        job.settle()
        if PREPARE in job.jobs:
            job.start_pod(PREPARE, "Running", {"prepare": running()})
            job.settle()
            job.prepare(PREPARE)
            job.settle()
        job.start_pod(TUNE, "Running", {**TUNED, "export": running()})
        job.settle()
        job.start_pod(TUNE, "Succeeded", TUNED)
        job.settle()
        assert job.status["phase"] == "Succeeded"
        return job

    prepared, plain = life(**GPU), life()
    assert prepared.writes == plain.writes + 2
    assert [event.reason for event in prepared.events] == [event.reason for event in plain.events]


def test_a_job_without_devices_is_not_prepared() -> None:
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    assert list(cluster.jobs) == [TUNE]


def test_finished_work_is_adopted_without_a_pod_that_requests_devices() -> None:
    cluster = begun(queueName="gpus", parallelism={"nodes": 2})
    cluster.prepare(PREPARE, "Adopted", runUri="s3://store/run", artifacts=[MERGED], metrics={"steps": 7, "tokens": 9})
    cluster.settle()
    status = cluster.status
    assert (status["phase"], status["reason"]) == ("Succeeded", "AdoptedExisting")
    assert (status["artifacts"], status["runUri"], status["metrics"]["tokens"]) == ([MERGED], "s3://store/run", 9)
    assert status["startTime"]
    assert status["completionTime"]
    assert (list(cluster.jobs), cluster.services) == ([PREPARE], {})
    assert {"attempt", "acceleratorHours", "attempts"}.isdisjoint(status)
    assert cluster.reconcile().is_empty


def compared() -> Cluster:
    """An EvalJob of devices, with a baseline, which is being prepared."""
    cluster = Cluster(eval_job(baseline={"uri": "s3://models/b"}, **GPU))
    cluster.settle()
    assert sorted(cluster.jobs) == [BASE, MODEL]
    return cluster


def at_work(cluster: Cluster) -> list[str]:
    """The Jobs that ask for devices."""
    return sorted(name for name in cluster.jobs if "-prepare" not in name)


def test_a_scored_baseline_is_adopted_whichever_role_is_prepared_first() -> None:
    for order in ((BASE, MODEL), (MODEL, BASE)):
        cluster = compared()
        for name in order:
            payload = {"results": [{**ACCURACY, "value": 0.5}], "modelUri": "s3://models/b"} if name == BASE else {}
            cluster.prepare(name, "Adopted" if payload else "Succeeded", **payload)
            cluster.settle()
        assert at_work(cluster) == ["support-eval-model-1"]
        assert cluster.status["attempt"] == 1
        assert "startTime" not in cluster.status, "the deadline of what may wait in a queue has not begun"
        cluster.start_pod("support-eval-model-1", "Succeeded", {"evaluate": ended(message=SCORED)})
        cluster.settle()
        assert cluster.status["phase"] == "Succeeded"
        assert [(result["value"], result["baseline"]) for result in cluster.status["results"]] == [(0.9, 0.5)]


def test_the_scores_of_both_roles_are_adopted_without_a_device() -> None:
    cluster = compared()
    for name, value in ((BASE, 0.5), (MODEL, 0.9)):
        cluster.prepare(name, "Adopted", results=[{**ACCURACY, "value": value}])
    cluster.settle()
    assert (cluster.status["phase"], at_work(cluster)) == ("Succeeded", [])
    assert [(result["value"], result["baseline"]) for result in cluster.status["results"]] == [(0.9, 0.5)]


def test_work_of_a_role_does_not_end_the_preparation_of_the_other() -> None:
    cluster = compared()
    cluster.prepare(MODEL)
    cluster.settle()
    cluster.start_pod("support-eval-model-1", "Running", {"fetch": TUNED["fetch"], "serve": running()})
    cluster.settle()
    assert at_work(cluster) == ["support-eval-model-1"]
    assert BASE in cluster.jobs
    cluster.fail(BASE, {"prepare": ended(67, failed_report("prepare", "ModelNotFound", "s3://models/b: nothing"))})
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "ModelNotFound")
    assert at_work(cluster) == []


def test_missing_input_is_reported_before_devices_are_requested() -> None:
    cluster = begun()
    payload = failed_report("prepare", "DatasetNotFound", "s3://data/train.jsonl: nothing is there")
    cluster.fail(PREPARE, {"prepare": ended(66, payload)})
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "DatasetNotFound")
    assert cluster.status["lastFailure"]["container"] == "prepare"
    assert list(cluster.jobs) == [PREPARE]


def test_a_failed_preparation_is_retried_and_costs_the_work_no_retries() -> None:
    cluster = begun(retries=1)
    cluster.fail(PREPARE, {"prepare": ended(69, failed_report("prepare", "StorageUnreachable", "no answer"))})
    cluster.settle()
    assert cluster.status["reason"] == "BackOff"
    cluster.reconcile(after=11)
    cluster.prepare("support-prepare-2")
    cluster.settle()
    assert TUNE in cluster.jobs
    assert cluster.jobs[TUNE]["metadata"]["annotations"]["tunesmith.dev/failures"] == "0"
    assert "failures" not in cluster.status


def test_a_preparation_has_no_queue_and_starts_no_deadline() -> None:
    cluster = begun(queueName="gpus", deadline="1h")
    job = cluster.jobs[PREPARE]
    assert QUEUE_LABEL not in job["metadata"]["labels"]
    assert "suspend" not in job["spec"]
    cluster.start_pod(PREPARE, "Running", {"prepare": running()})
    cluster.settle()
    assert "startTime" not in cluster.status
    cluster.prepare(PREPARE)
    cluster.reconcile(after=7200)
    cluster.settle()
    assert cluster.status["phase"] == "Queued", "time in the queue does not count"


def wait_for_resource(cluster: Cluster, how: str) -> None:
    """The pod that prepares is not let in."""
    if how == "a queue that takes every Job":
        cluster.jobs[PREPARE]["spec"]["suspend"] = True
    elif how == "no room on a node":
        cluster.start_pod(PREPARE, "Pending", conditions=[LACK])
    cluster.settle()


WAYS = ["a queue that takes every Job", "no room on a node"]


@pytest.mark.parametrize("how", WAYS)
def test_work_does_not_wait_for_a_preparation_that_is_blocked(how: str) -> None:
    cluster = begun(queueName="gpus")
    wait_for_resource(cluster, how)
    assert sorted(cluster.jobs) == [PREPARE, TUNE]
    assert cluster.status["phase"] == "Queued"
    cluster.admit(TUNE)
    cluster.start_pod(TUNE, "Running", {"fetch": running()})
    cluster.settle()
    assert list(cluster.jobs) == [TUNE], "what has begun need not be prepared"


def test_work_does_not_wait_for_a_preparation_whose_job_is_rejected() -> None:
    cluster = Cluster(fine_tune_job(**GPU, queueName="gpus"))
    cluster.refused = {Key("Job", PREPARE): "admission webhook denied the request: Jobs must name a queue"}
    cluster.reconcile()
    assert list(cluster.jobs) == [TUNE]


def test_work_that_failed_before_it_started_is_adopted_and_not_retried() -> None:
    cluster = begun(queueName="gpus")
    wait_for_resource(cluster, WAYS[0])
    cluster.admit(TUNE)
    cluster.fail(TUNE, {}, reason="Evicted", message="low on memory")
    cluster.settle()
    cluster.prepare(PREPARE, "Adopted", artifacts=[MERGED])
    cluster.settle()
    assert (cluster.status["reason"], at_work(cluster)) == ("AdoptedExisting", [TUNE])


def test_the_number_of_an_attempt_is_kept_when_its_job_is_deleted_before_a_status() -> None:
    cluster = Cluster(eval_job(**GPU))
    cluster.begin()
    del cluster.jobs["support-eval-model-1"]
    for suspend in (True, False):
        cluster.resource = with_spec(cluster.resource, suspend=suspend)
        cluster.settle()
    assert at_work(cluster) == ["support-eval-model-2"]
    assert cluster.status["attempt"] == 2


def test_a_superseded_job_that_a_kill_has_left_is_deleted() -> None:
    cluster = begun()
    cluster.prepare(PREPARE)
    cluster.settle()
    former = cluster.jobs[TUNE]
    pod = cluster.start_pod(TUNE, "Running", {"fetch": running()})
    cluster.settle()
    pod["metadata"]["deletionTimestamp"] = format_time(cluster.now - timedelta(seconds=40))
    cluster.settle()
    cluster.jobs[TUNE] = former
    cluster.settle()
    assert at_work(cluster) == ["support-tune-2"]


@pytest.mark.parametrize("how", WAYS)
def test_work_that_is_found_finished_while_it_waits_is_adopted(how: str) -> None:
    cluster = begun(queueName="gpus")
    wait_for_resource(cluster, how)
    cluster.jobs[PREPARE]["spec"].pop("suspend", None)
    cluster.reconcile(after=300)
    cluster.prepare(PREPARE, "Adopted", artifacts=[MERGED])
    cluster.settle()
    [row] = cluster.status["attempts"]
    assert (cluster.status["attempt"], row["outcome"], cluster.status["queuedSeconds"]) == (1, "Stopped", 300)
    assert cluster.status["startTime"]
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Succeeded", "AdoptedExisting")
    assert list(cluster.jobs) == [PREPARE]
    assert cluster.condition("Reconciling")["status"] == "False"


@pytest.mark.parametrize("how", WAYS)
def test_suspend_and_completion_stop_a_blocked_preparation_too(how: str) -> None:
    suspended, ended_ = begun(queueName="gpus"), begun(queueName="gpus", pendingDeadline="1m")
    wait_for_resource(suspended, how)
    suspended.resource = with_spec(suspended.resource, suspend=True)
    suspended.settle()
    assert (suspended.status["phase"], suspended.jobs) == ("Suspended", {})
    wait_for_resource(ended_, how)
    ended_.admit(TUNE)
    ended_.start_pod(TUNE, "Pending", conditions=[LACK])
    ended_.reconcile(after=61)
    ended_.settle()
    assert (ended_.status["reason"], ended_.jobs) == ("DeadlineExceeded", {})


def test_work_that_has_started_is_not_prepared_again() -> None:
    cluster = begun()
    cluster.prepare(PREPARE)
    cluster.settle()
    cluster.remove(PREPARE)
    cluster.fail(TUNE, {"fetch": TUNED["fetch"], "train": ended(137, reason="OOMKilled")})
    cluster.settle()
    cluster.reconcile(after=11)
    assert sorted(cluster.jobs) == [TUNE, "support-tune-2"]
    cluster.remove(TUNE)
    cluster.remove("support-tune-2")
    cluster.settle()
    cluster.reconcile(after=31)
    assert list(cluster.jobs) == ["support-tune-3"]


def test_suspend_stops_a_preparation_and_resume_repeats_it() -> None:
    cluster = begun()
    cluster.resource = with_spec(cluster.resource, suspend=True)
    cluster.settle()
    assert (cluster.status["phase"], cluster.jobs) == ("Suspended", {})
    cluster.resource = with_spec(cluster.resource, suspend=False)
    cluster.settle()
    assert list(cluster.jobs) == [PREPARE]


def test_a_failure_that_would_also_stop_the_work_is_reported_before_devices_are_requested() -> None:
    cluster = begun()
    cluster.start_pod(PREPARE, "Pending", {"prepare": waiting("ImagePullBackOff", "not found")})
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "ImagePull")
    assert list(cluster.jobs) == [PREPARE]


@pytest.mark.parametrize(("uri", "asks"), [("hf://Qwen/Qwen3-8B", "64Gi"), ("s3://models/a", "2Gi")])
def test_an_import_has_the_memory_and_disk_of_the_work_and_a_check_has_little(uri: str, asks: str) -> None:
    resources = {**GPU["resources"], "memory": "64Gi", "ephemeralStorage": "500Gi"}
    job = begun(model={"uri": uri}, resources=resources).jobs[PREPARE]
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["memory"] == asks
    assert "nvidia.com/gpu" not in container["resources"]["requests"]


@pytest.mark.parametrize(("engine", "asks"), [("transformers", "2Gi"), ("auto", "512Mi")])
def test_only_what_restores_a_quantized_model_asks_for_the_memory_of_that(engine: str, asks: str) -> None:
    """Engines of their own read a quantized model as it is."""
    cluster = Cluster(eval_job(engine=engine, **GPU))
    cluster.settle()
    [container] = cluster.jobs[MODEL]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["memory"] == asks


def test_without_a_size_an_import_asks_for_the_memory_of_restoring() -> None:
    job = begun(model={"uri": "hf://Qwen/Qwen3-8B"}).jobs[PREPARE]
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["memory"] == "2Gi"


@pytest.mark.parametrize("kind", [fine_tune_job, eval_job])
def test_a_preparation_has_the_run_spec_of_the_work_without_its_process_group(kind: Any) -> None:
    cluster = Cluster(kind(**GPU), now=START, config=CONFIG)
    cluster.begin()
    runs = [job["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/run"] for job in cluster.jobs.values()]
    first, work = runs
    assert '"world"' not in first
    assert first.rstrip("}") in work
