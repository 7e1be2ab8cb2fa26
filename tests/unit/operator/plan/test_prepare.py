"""What needs no device is done before one is asked for."""

from __future__ import annotations

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
    running,
    with_spec,
)
from tunesmith_operator.plan.queueing import QUEUE_LABEL
from tunesmith_operator.plan.types import Raw

GPU: Raw = {"resources": {"accelerator": "nvidia", "count": 8}}
MERGED: Raw = {"name": "merged", "uri": "s3://store/run/merged", "digest": "d2"}
ACCURACY: Raw = {"benchmark": "support-qa", "metric": "accuracy", "value": 0.9}
PREPARE, TUNE = "support-prepare-1", "support-tune-1"


def begun(**spec: Any) -> Cluster:
    """A FineTuneJob of devices whose first Job is made."""
    cluster = Cluster(fine_tune_job(**{**GPU, **spec}))
    cluster.settle()
    return cluster


def test_a_job_of_devices_is_prepared_by_a_pod_without_any_before_it_asks_for_them() -> None:
    cluster = begun()
    assert list(cluster.jobs) == [PREPARE]
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Preparing", "Preparing")
    cluster.prepare(PREPARE, runUri="s3://store/run", modelUri="s3://store/models/m", modelDigest="d1")
    cluster.settle()
    assert list(cluster.jobs) == [PREPARE, TUNE]
    assert (cluster.status["phase"], cluster.status["attempt"]) == ("Pending", 1)


def test_to_prepare_costs_two_writes_and_no_event() -> None:
    def life(**spec: Any) -> Cluster:
        one = Cluster(fine_tune_job(**spec))
        one.begin()
        one.start_pod(TUNE, "Running", {**TUNED, "export": running()})
        one.settle()
        one.start_pod(TUNE, "Succeeded", TUNED)
        one.settle()
        assert one.status["phase"] == "Succeeded"
        return one

    prepared, plain = life(**GPU), life()
    assert prepared.writes == plain.writes + 2
    assert [event.reason for event in prepared.events] == [event.reason for event in plain.events]


def test_a_job_without_devices_looks_for_itself() -> None:
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    assert list(cluster.jobs) == [TUNE]


def test_finished_work_is_adopted_without_a_pod_that_asks_for_devices() -> None:
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


def test_scores_are_adopted_by_each_model_for_itself() -> None:
    cluster = Cluster(eval_job(baseline={"uri": "s3://models/b"}, **GPU))
    cluster.settle()
    assert sorted(cluster.jobs) == ["support-prepare-base-1", "support-prepare-model-1"]
    cluster.prepare("support-prepare-base-1", "Adopted", results=[{**ACCURACY, "value": 0.5}], modelUri="s3://models/b")
    cluster.prepare("support-prepare-model-1")
    cluster.settle()
    assert "support-eval-baseline-1" not in cluster.jobs, "a baseline that was scored is not scored again"
    assert "startTime" not in cluster.status, "the deadline of what may wait in a queue has not begun"
    cluster.start_pod("support-eval-model-1", "Running", {"fetch": TUNED["fetch"], "serve": running()})
    cluster.settle()
    assert cluster.status["phase"] == "Running"
    cluster.remove("support-eval-model-1")
    other = Cluster(eval_job(baseline={"uri": "s3://models/b"}, **GPU))
    other.settle()
    for name, value in (("base", 0.5), ("model", 0.9)):
        other.prepare(f"support-prepare-{name}-1", "Adopted", results=[{**ACCURACY, "value": value}])
    other.settle()
    assert other.status["phase"] == "Succeeded"
    assert [(one["value"], one["baseline"]) for one in other.status["results"]] == [(0.9, 0.5)]


def test_what_is_not_there_is_told_before_a_device_is_asked_for() -> None:
    cluster = begun()
    told = failed_report("prepare", "DatasetNotFound", "s3://data/train.jsonl: nothing is there")
    cluster.fail(PREPARE, {"prepare": ended(66, told)})
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "DatasetNotFound")
    assert cluster.status["lastFailure"]["container"] == "prepare"
    assert list(cluster.jobs) == [PREPARE]


def test_a_store_out_of_reach_is_tried_again_and_the_work_keeps_all_its_retries() -> None:
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


def test_what_prepares_has_no_queue_and_starts_no_deadline() -> None:
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


def test_a_preparation_that_somebody_holds_back_is_passed_over() -> None:
    """Kueue may be told to hold every Job that names no queue."""
    cluster = begun(queueName="gpus")
    cluster.jobs[PREPARE]["spec"]["suspend"] = True
    cluster.settle()
    assert cluster.status["phase"] == "Queued"
    assert TUNE in cluster.jobs


def test_work_that_has_begun_is_not_prepared_again() -> None:
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


def test_suspended_it_is_prepared_no_further_and_resumed_it_is() -> None:
    cluster = begun()
    cluster.resource = with_spec(cluster.resource, suspend=True)
    cluster.settle()
    assert (cluster.status["phase"], cluster.jobs) == ("Suspended", {})
    cluster.resource = with_spec(cluster.resource, suspend=False)
    cluster.settle()
    assert list(cluster.jobs) == [PREPARE]


def test_its_pod_that_finds_no_node_says_so_and_is_given_up_after_the_pending_deadline() -> None:
    cluster = begun(pendingDeadline="10m")
    lack = condition("PodScheduled", False, "Unschedulable", "0/1 nodes are available: 1 Insufficient cpu.")
    cluster.start_pod(PREPARE, "Pending", conditions=[lack])
    cluster.settle()
    assert cluster.status["reason"] == "Unschedulable"
    cluster.reconcile(after=601)
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "DeadlineExceeded")


@pytest.mark.parametrize("kind", [fine_tune_job, eval_job])
def test_what_prepares_is_told_what_the_work_is_told_but_the_world(kind: Any) -> None:
    cluster = Cluster(kind(**GPU), now=START, config=CONFIG)
    cluster.begin()
    runs = [job["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/run"] for job in cluster.jobs.values()]
    first, work = runs
    assert '"world"' not in first
    assert first.rstrip("}") in work
