"""How far a FineTuneJob goes: spec.until, and the estimate that it reports on the way."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.plan.world import (
    TUNED,
    Cluster,
    ended,
    failed_report,
    fine_tune_job,
    report,
    running,
)
from tunesmith_operator.plan.jobs.queueing import QUEUE_LABEL
from tunesmith_operator.plan.types import Raw, Reference

GPUS: Raw = {"resources": {"accelerator": "nvidia", "count": 8}, "parallelism": {"nodes": 2}}
SUMMARY = "needs 21.4 of 24 GiB on each device; about 3 h 10 min on one L4"
ESTIMATE: Raw = {"summary": SUMMARY, "memoryBytes": 22978461696, "memory": {"weights": 22978461696}, "steps": 120}
PREPARE, TUNE = "support-prepare-1", "support-tune-1"


def begun(**spec: Any) -> Cluster:
    cluster = Cluster(fine_tune_job(**{**GPUS, **spec}))
    cluster.settle()
    return cluster


def stages(cluster: Cluster, job: str) -> list[str]:
    spec = cluster.jobs[job]["spec"]["template"]["spec"]
    return [each["name"] for each in (*spec.get("initContainers", ()), *spec["containers"])]


@pytest.mark.parametrize("until", ["estimate", "data"])
def test_a_job_that_ends_before_training_has_one_pod_without_devices_or_queue(until: str) -> None:
    cluster = begun(until=until, queueName="gpus")
    assert list(cluster.jobs) == [TUNE]
    assert stages(cluster, TUNE) == ["prepare"]
    job = cluster.jobs[TUNE]
    assert "nvidia.com/gpu" not in str(job)
    assert "completions" not in job["spec"]
    assert not job["spec"].get("suspend")
    assert QUEUE_LABEL not in job["metadata"]["labels"]
    assert cluster.status["phase"] == "Pending"


def test_its_result_is_the_estimate_and_the_rows() -> None:
    cluster = begun(until="data")
    rows = {"kept": 7, "dropped": [{"reason": "TooLong", "count": 2}, {"reason": "NoAnswer", "count": 1}]}
    message = report("prepare", runUri="s3://store/run", modelUri="s3://store/m/1", rows=rows, estimate=ESTIMATE)
    cluster.start_pod(TUNE, "Succeeded", {"prepare": ended(message=message)})
    cluster.end_job(TUNE, "Complete", "CompletionsReached")
    cluster.settle()
    status = cluster.status
    assert (status["phase"], status["reason"]) == ("Succeeded", "Completed")
    assert status["message"] == f"{SUMMARY}; 7 rows kept, 3 dropped"
    assert status["estimate"] == ESTIMATE
    assert status["rows"] == rows
    assert "progress" not in status
    assert "artifacts" not in status
    assert "acceleratorHours" not in status


def test_a_job_until_training_has_no_export_and_keeps_its_devices() -> None:
    cluster = begun(until="train", parallelism={"nodes": 1})
    cluster.prepare(PREPARE, runUri="s3://store/run", estimate=ESTIMATE)
    cluster.settle()
    assert stages(cluster, TUNE) == ["fetch", "train"]
    limits = cluster.jobs[TUNE]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "8"
    made = report("train", runUri="s3://store/run", artifacts=[{"name": "adapter", "uri": "s3://store/run/adapter"}])
    cluster.start_pod(TUNE, "Succeeded", {"fetch": TUNED["fetch"], "train": ended(message=made)})
    cluster.end_job(TUNE, "Complete", "CompletionsReached")
    cluster.settle()
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["progress"]["stage"] == "train"
    assert [each["name"] for each in cluster.status["artifacts"]] == ["adapter"]


def test_the_estimate_of_the_preparation_stays_while_the_job_trains() -> None:
    cluster = begun(parallelism={"nodes": 1})
    cluster.prepare(PREPARE, runUri="s3://store/run", estimate=ESTIMATE)
    cluster.settle()
    assert cluster.status["estimate"]["summary"] == SUMMARY
    cluster.start_pod(TUNE, "Pending", {"fetch": TUNED["fetch"], "train": running()})
    cluster.settle()
    assert cluster.status["estimate"] == ESTIMATE


def test_a_job_that_will_not_fit_fails_before_devices_are_requested() -> None:
    cluster = begun(fit="Refuse", parallelism={"nodes": 1})
    text = "the training needs 21.4 GiB on each device, which has 16 GiB"
    payload = failed_report("prepare", "WillNotFit", text, hint="set spec.training.microBatchSize: 1 (needs 12.0 GiB)")
    cluster.fail(PREPARE, {"prepare": ended(95, payload)})
    cluster.settle()
    assert list(cluster.jobs) == [PREPARE]
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "WillNotFit")
    assert "spec.training.microBatchSize: 1" in cluster.status["lastFailure"]["hint"]


def test_a_job_without_a_model_has_the_setting_that_publishes_one() -> None:
    first = begun(until="estimate").resource
    first["status"] |= {"phase": "Succeeded"}
    cluster = Cluster(fine_tune_job(model={"fineTuneJob": {"name": "first"}}))
    cluster.others[Reference("FineTuneJob", "first")] = first
    cluster.settle()
    assert cluster.status["reason"] == "BadSpec"
    assert "again with spec.until: export instead of estimate" in cluster.status["message"]
