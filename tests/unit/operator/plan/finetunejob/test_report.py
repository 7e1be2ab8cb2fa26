"""Status fields of a FineTuneJob."""

from __future__ import annotations

from tests.unit.operator.plan.jobs.support import begun, pushed
from tests.unit.operator.plan.world import (
    TUNED,
    ended,
    fine_tune_job,
    report,
    running,
    tuned,
)


def test_a_finished_job_shows_its_artifacts():
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
    assert {condition["type"]: condition["status"] for condition in status["conditions"]} == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "Succeeded": "True",
    }


def test_adopted_work_has_a_reason_of_its_own():
    cluster = begun()
    adopted = {verb: ended(message=report(verb, "Adopted", runUri="s3://r")) for verb in ("fetch", "train", "export")}
    cluster.start_pod("support-tune-1", "Succeeded", adopted)
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Succeeded", "AdoptedExisting")


def test_a_pushed_checkpoint_is_shown():
    cluster = begun()
    cluster.start_pod("support-tune-1", "Running", {"fetch": TUNED["fetch"], "train": running()})
    pushed(cluster, 7, last_checkpoint={"uri": "s3://store/run/checkpoints/5", "step": 5}, resumed_from_step=3)
    cluster.settle()
    assert cluster.status["lastCheckpoint"]["step"] == 5
    assert cluster.status["resumedFromStep"] == 3


def test_the_checkpoint_of_a_preempted_attempt_is_kept():
    cluster = begun()
    payload = report("train", "Preempted", lastCheckpoint={"uri": "s3://store/run/checkpoints/9", "step": 9})
    cluster.fail("support-tune-1", {"fetch": TUNED["fetch"], "train": ended(75, payload)})
    cluster.settle()
    cluster.reconcile(after=60)
    assert "support-tune-2" in cluster.jobs
    assert cluster.status["lastCheckpoint"]["step"] == 9


def test_a_name_is_shown_as_what_it_stands_for_once_the_pod_has_looked_it_up():
    cluster = begun(fine_tune_job(model={"name": "qwen3-8b"}))
    cluster.start_pod("support-tune-1", "Pending", {"fetch": running()})
    cluster.settle()
    assert "model" not in cluster.status
    fetched = ended(message=report("fetch", modelUri="s3://store/models/m", modelDigest="d1"))
    cluster.start_pod("support-tune-1", "Running", {"fetch": fetched, "train": running()})
    cluster.settle()
    assert cluster.status["model"] == {"uri": "s3://store/models/m", "digest": "d1"}
