"""Status fields of an EvalJob."""

from __future__ import annotations

from tests.unit.operator.plan.evaljob.support import BASE, TUNED_MODEL, begun, score
from tests.unit.operator.plan.world import (
    ended,
    running,
)
from tunesmith_api.run import ProgressReport
from tunesmith_operator.plan.types import Progress


def test_results_have_the_baseline_and_the_delta():
    cluster = begun(model=TUNED_MODEL, baseline=BASE)
    score(cluster, "baseline", 0.1)
    cluster.settle()
    assert "verdict" not in cluster.status
    score(cluster, "model", 0.57)
    cluster.settle()
    (result,) = cluster.status["results"]
    assert (result["value"], result["baseline"], result["delta"]) == (0.57, 0.1, 0.47)
    assert cluster.status["score"] == "0.57"
    assert [artifact["name"] for artifact in cluster.status["artifacts"]] == ["report", "baseline-report"]


def test_status_names_the_digest_that_was_scored():
    cluster = begun(model=TUNED_MODEL, gates=[{"benchmark": "support-qa", "min": 0.4}])
    score(cluster, "model", 0.57)
    cluster.settle()
    assert cluster.status["verdict"] == "Passed"
    assert cluster.status["model"]["digest"] == "d2"
    assert cluster.condition("Passed")["status"] == "True"
    assert cluster.status["message"] == "support-qa: accuracy 0.57 is at least 0.40"


def test_a_model_by_uri_gets_its_digest_from_the_pod():
    cluster = begun()
    score(cluster, "model", 0.5)
    cluster.settle()
    assert cluster.status["model"] == {"uri": "s3://store/models/1", "digest": "d9"}


def test_a_failed_gate_fails_the_verdict_and_not_the_job():
    cluster = begun(gates=[{"benchmark": "support-qa", "min": 0.8}])
    score(cluster, "model", 0.57)
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Succeeded", "GatesFailed")
    assert cluster.status["verdict"] == "Failed"
    assert cluster.condition("Succeeded")["status"] == "True"
    assert cluster.condition("Passed")["status"] == "False"
    assert cluster.status["gates"][0]["message"] == "accuracy 0.57 is below 0.80"


def test_progress_names_its_role():
    cluster = begun(model=TUNED_MODEL, baseline=BASE)
    pushed = ProgressReport(stage="support-qa", step=25, total_steps=100)
    cluster.progress["support-eval-baseline-1"] = Progress(pushed, cluster.now)
    cluster.start_pod("support-eval-baseline-1", "Running", {"fetch": ended(), "serve": running()})
    cluster.settle()
    assert cluster.status["progress"]["stage"] == "baseline: support-qa"
    assert cluster.status["progress"]["percent"] == 25
