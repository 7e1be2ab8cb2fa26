"""The life of an EvalJob."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.operator.plan.evaljob.support import BASE, TUNED_MODEL, begun, run_spec_of, score
from tests.unit.operator.plan.world import (
    Cluster,
    ended,
    eval_job,
    report,
    running,
    waiting,
    with_spec,
)
from tunesmith_operator.plan.types import Key, Reference


def test_model_and_baseline_are_scored_in_parallel():
    cluster = begun(model=TUNED_MODEL, baseline=BASE)
    assert list(cluster.jobs) == ["support-eval-model-1", "support-eval-baseline-1"]
    assert run_spec_of(cluster, "support-eval-model-1")["models"]["base"]["uri"] == "s3://store/run/merged"
    assert run_spec_of(cluster, "support-eval-baseline-1")["models"]["base"]["uri"] == "hf://Qwen/Qwen3-8B"


def test_without_a_baseline_there_is_one_job():
    cluster = begun()
    assert list(cluster.jobs) == ["support-eval-model-1"]


def test_it_waits_for_its_model_and_names_it():
    cluster = Cluster(eval_job(model=TUNED_MODEL, baseline=BASE))
    cluster.settle()
    assert cluster.jobs == {}
    assert cluster.status["phase"] == "Waiting"
    assert cluster.status["waitingFor"].startswith("FineTuneJob support")


def test_it_can_score_the_model_that_a_service_serves():
    cluster = Cluster(eval_job(model={"inferenceService": {"name": "chat"}}))
    cluster.settle()
    assert cluster.status["waitingFor"].startswith("InferenceService chat")
    service = {"status": {"model": {"uri": "s3://m/adapter", "digest": "d7", "base": "s3://m/base"}}}
    cluster.others[Reference("InferenceService", "chat")] = service
    cluster.settle()
    models = run_spec_of(cluster, "support-eval-model-1")["models"]
    assert (models["adapter"]["uri"], models["adapter"]["digest"]) == ("s3://m/adapter", "d7")
    assert models["base"]["uri"] == "s3://m/base"


def test_a_failed_role_is_retried_while_the_other_keeps_its_result():
    cluster = begun(model=TUNED_MODEL, baseline=BASE)
    score(cluster, "model", 0.57)
    cluster.fail("support-eval-baseline-1", {"fetch": ended(69)})
    cluster.settle()
    cluster.reconcile(after=10)
    assert "support-eval-baseline-2" in cluster.jobs
    assert "support-eval-model-2" not in cluster.jobs
    score(cluster, "baseline", 0.1, attempt=2)
    cluster.settle()
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["attempt"] == 2


def test_a_permanent_failure_of_a_role_ends_the_other():
    cluster = begun(model=TUNED_MODEL, baseline=BASE)
    cluster.start_pod("support-eval-model-1", "Running", {"fetch": running()})
    cluster.fail("support-eval-baseline-1", {"fetch": ended(68)})
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "ModelNotFound")
    assert list(cluster.jobs) == ["support-eval-baseline-1"]
    assert "verdict" not in cluster.status


def test_an_engine_that_never_becomes_ready_costs_a_retry_and_frees_its_devices():
    cluster = begun(retries=1)
    for attempt in (1, 2):
        name = f"support-eval-model-{attempt}"
        serve = {"state": waiting("CrashLoopBackOff"), "lastState": ended(83, "no such op"), "restartCount": 3}
        cluster.start_pod(name, "Pending", {"fetch": ended(message=report("fetch")), "serve": serve})
        cluster.settle()
        assert name not in cluster.jobs
        assert cluster.status["lastFailure"]["class"] == "EngineFailed"
        assert cluster.status["failures"] == attempt
    assert cluster.status["phase"] == "Failed"
    assert list(cluster.jobs) == []


def test_suspend_stops_both_roles():
    cluster = begun(model=TUNED_MODEL, baseline=BASE)
    cluster.resource = with_spec(cluster.resource, suspend=True)
    plan = cluster.reconcile()
    assert set(plan.delete) == {Key("Job", "support-eval-model-1"), Key("Job", "support-eval-baseline-1")}
    cluster.resource = with_spec(cluster.resource, suspend=False)
    cluster.settle()
    assert list(cluster.jobs) == ["support-eval-model-2", "support-eval-baseline-2"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"engine": "vllm", "resources": {"accelerator": "nvidia"}},
            "engine vllm has no image here. Hint: set images.engines.vllm in the chart's values",
        ),
        ({"engine": "lmdeploy"}, "engine lmdeploy does not run on accelerator cpu"),
    ],
)
def test_an_engine_that_is_not_available_is_refused(spec, words):
    cluster = begun(**spec)
    assert cluster.status["reason"] == "BadSpec"
    assert words in cluster.status["message"]


def test_a_refused_engine_names_the_chart_value_and_the_available_engines():
    message = begun(engine="sglang", resources={"accelerator": "nvidia"}).status["message"]
    assert "set images.engines.sglang in the chart's values, or spec.engine: auto" in message
    assert "(engines for nvidia here: lmdeploy, transformers)" in message


def test_a_rejected_baseline_does_not_delay_the_model():
    cluster = Cluster(eval_job(baseline=BASE))
    for attempt in (1, 2):
        cluster.refused[Key("Job", f"support-eval-baseline-{attempt}")] = "exceeded quota: jobs"
    cluster.settle()
    assert list(cluster.jobs) == ["support-eval-model-1"]
    assert cluster.status["lastFailure"]["class"] == "QuotaExceeded"
    cluster.refused.clear()
    cluster.settle()
    assert len(cluster.jobs) == 2


def test_a_verdict_stays_when_everything_else_is_deleted():
    cluster = begun(model=TUNED_MODEL)
    score(cluster, "model", 0.57)
    cluster.settle()
    cluster.jobs.clear()
    cluster.pods.clear()
    cluster.others.clear()
    cluster.now += timedelta(days=1)
    cluster.settle()
    assert cluster.status["verdict"] == "Passed"
    assert cluster.jobs == {}
