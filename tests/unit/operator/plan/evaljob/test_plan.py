from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.operator.plan.world import (
    CONFIG,
    Cluster,
    ended,
    eval_job,
    report,
    running,
    tuned,
    waiting,
    with_engines,
    with_spec,
)
from tunesmith_api.run import ProgressReport
from tunesmith_operator.plan.types import Key, Progress, Raw, Reference

TUNED_MODEL = {"fineTuneJob": {"name": "support"}}
BASE = {"uri": "hf://Qwen/Qwen3-8B"}


def scored(value: float, **more: Any) -> Raw:
    """The containers of a pod that scored a model."""
    results = [{"benchmark": "support-qa", "metric": "accuracy", "value": value, "samples": 100}]
    artifacts = [{"name": "report", "uri": f"s3://store/evals/{value}"}]
    fetched = report("fetch", modelUri="s3://store/models/1", modelDigest="d9")
    return {
        "fetch": ended(message=fetched),
        "serve": ended(143),
        "evaluate": ended(message=report("evaluate", results=results, artifacts=artifacts, **more)),
    }


def score(cluster: Cluster, role: str, value: float, attempt: int = 1) -> None:
    name = f"support-eval-{role}-{attempt}"
    cluster.start_pod(name, "Succeeded", scored(value))
    cluster.end_job(name, "Complete")


def begun(**spec: Any) -> Cluster:
    cluster = Cluster(eval_job(**spec))
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.begin()
    return cluster


def run_spec_of(cluster: Cluster, job: str) -> Raw:
    return json.loads(cluster.jobs[job]["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/run"])


def test_model_and_baseline_are_scored_side_by_side():
    cluster = begun(model=TUNED_MODEL, baseline=BASE)
    assert list(cluster.jobs) == ["support-eval-model-1", "support-eval-baseline-1"]
    assert run_spec_of(cluster, "support-eval-model-1")["models"]["base"]["uri"] == "s3://store/run/merged"
    assert run_spec_of(cluster, "support-eval-baseline-1")["models"]["base"]["uri"] == "hf://Qwen/Qwen3-8B"


def test_without_a_baseline_there_is_one_job():
    cluster = begun()
    assert list(cluster.jobs) == ["support-eval-model-1"]


def test_it_waits_for_its_model_and_says_for_which():
    cluster = Cluster(eval_job(model=TUNED_MODEL, baseline=BASE))
    cluster.settle()
    assert cluster.jobs == {}
    assert cluster.status["phase"] == "Waiting"
    assert cluster.status["waitingFor"].startswith("FineTuneJob support")


def test_it_can_score_what_a_service_serves_now():
    cluster = Cluster(eval_job(model={"inferenceService": {"name": "chat"}}))
    cluster.settle()
    assert cluster.status["waitingFor"].startswith("InferenceService chat")
    service = {"status": {"model": {"uri": "s3://m/adapter", "digest": "d7", "base": "s3://m/base"}}}
    cluster.others[Reference("InferenceService", "chat")] = service
    cluster.settle()
    models = run_spec_of(cluster, "support-eval-model-1")["models"]
    assert (models["adapter"]["uri"], models["adapter"]["digest"]) == ("s3://m/adapter", "d7")
    assert models["base"]["uri"] == "s3://m/base"


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
    assert [one["name"] for one in cluster.status["artifacts"]] == ["report", "baseline-report"]


def test_the_verdict_names_the_digest_that_was_scored():
    cluster = begun(model=TUNED_MODEL, gates=[{"benchmark": "support-qa", "min": 0.4}])
    score(cluster, "model", 0.57)
    cluster.settle()
    assert cluster.status["verdict"] == "Passed"
    assert cluster.status["model"]["digest"] == "d2"
    assert cluster.condition("Passed")["status"] == "True"
    assert cluster.status["message"] == "support-qa: accuracy 0.57 is at least 0.40"


def test_a_model_of_a_uri_gets_its_digest_from_the_pod():
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


def test_one_role_is_tried_again_while_the_other_keeps_its_result():
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


def test_the_end_of_one_role_for_good_ends_the_other():
    cluster = begun(model=TUNED_MODEL, baseline=BASE)
    cluster.start_pod("support-eval-model-1", "Running", {"fetch": running()})
    cluster.fail("support-eval-baseline-1", {"fetch": ended(68)})
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "ModelNotFound")
    assert list(cluster.jobs) == ["support-eval-baseline-1"]
    assert "verdict" not in cluster.status


def test_an_engine_that_never_comes_up_costs_a_retry_and_frees_its_devices():
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


def test_the_same_scoring_has_the_same_hash_whatever_the_model_and_the_gates():
    one = begun(model=TUNED_MODEL, baseline=BASE, gates=[{"benchmark": "support-qa", "min": 0.1}])
    other = begun()
    more = begun(generation={"maxTokens": 64})
    hashes = [run_spec_of(cluster, "support-eval-model-1")["specHash"] for cluster in (one, other, more)]
    assert hashes[0] == run_spec_of(one, "support-eval-baseline-1")["specHash"] == hashes[1]
    assert hashes[2] != hashes[0]


def test_progress_says_whose_it_is():
    cluster = begun(model=TUNED_MODEL, baseline=BASE)
    pushed = ProgressReport(stage="support-qa", step=25, total_steps=100)
    cluster.progress["support-eval-baseline-1"] = Progress(pushed, cluster.now)
    cluster.start_pod("support-eval-baseline-1", "Running", {"fetch": ended(), "serve": running()})
    cluster.settle()
    assert cluster.status["progress"]["stage"] == "baseline: support-qa"
    assert cluster.status["progress"]["percent"] == 25


def test_suspend_stops_both_roles_and_keeps_nothing_half_done():
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
            "engine vllm has no image here: set images.engines.vllm in the chart's values",
        ),
        ({"engine": "lmdeploy"}, "engine lmdeploy does not run on accelerator cpu"),
    ],
)
def test_an_engine_that_is_not_to_be_had_is_refused(spec, words):
    cluster = begun(**spec)
    assert cluster.status["reason"] == "BadSpec"
    assert words in cluster.status["message"]


def test_a_refused_engine_is_told_with_the_value_to_set_and_the_engines_that_there_are():
    message = begun(engine="sglang", resources={"accelerator": "nvidia"}).status["message"]
    assert "set images.engines.sglang in the chart's values, or spec.engine: auto" in message
    assert "(engines for nvidia here: lmdeploy, transformers)" in message


@pytest.mark.parametrize(
    ("engines", "chosen"),
    [
        ({}, "transformers"),
        ({"vllm": "registry/vllm:1"}, "vllm"),
        ({"sglang": "registry/sglang:1", "vllm": "registry/vllm:1"}, "vllm"),
        ({"sglang": "registry/sglang:1", "lmdeploy": "registry/lmdeploy:1"}, "lmdeploy"),
    ],
)
@pytest.mark.parametrize("accelerator", ["nvidia", "ascend"])
def test_auto_is_the_first_engine_that_has_an_image(engines, chosen, accelerator):
    cluster = Cluster(eval_job(resources={"accelerator": accelerator}), config=with_engines(engines))
    cluster.begin()
    assert run_spec_of(cluster, "support-eval-model-1")["spec"]["engine"] == chosen
    score(cluster, "model", 0.5)
    cluster.settle()
    assert cluster.status["engine"] == chosen


def test_an_evaluation_that_has_begun_keeps_its_engine_when_another_gets_an_image():
    nvidia = {"accelerator": "nvidia"}
    cluster = Cluster(eval_job(baseline=BASE, resources=nvidia), config=with_engines({}))
    cluster.begin()
    score(cluster, "model", 0.5)
    cluster.settle()
    cluster.config = CONFIG
    cluster.fail("support-eval-baseline-1", {"serve": ended(1)})
    cluster.settle()
    cluster.reconcile(after=60)
    assert run_spec_of(cluster, "support-eval-baseline-2")["spec"]["engine"] == "transformers"


def test_auto_is_lmdeploy_on_devices_and_transformers_on_the_cpu():
    images = []
    for spec in ({}, {"resources": {"accelerator": "nvidia"}}, {"resources": {"accelerator": "ascend"}}):
        cluster = begun(**spec)
        pod = cluster.jobs["support-eval-model-1"]["spec"]["template"]["spec"]
        images.append(
            (pod["initContainers"][1]["image"], run_spec_of(cluster, "support-eval-model-1")["spec"]["engine"])
        )
    assert images == [
        ("registry/runtime:1", "transformers"),
        ("registry/lmdeploy:1", "lmdeploy"),
        ("registry/lmdeploy:1", "lmdeploy"),
    ]


def test_a_refused_baseline_does_not_hold_the_model_up():
    cluster = Cluster(eval_job(baseline=BASE))
    for attempt in (1, 2):
        cluster.refused[Key("Job", f"support-eval-baseline-{attempt}")] = "exceeded quota: jobs"
    cluster.settle()
    assert list(cluster.jobs) == ["support-eval-model-1"]
    assert cluster.status["lastFailure"]["class"] == "QuotaExceeded"
    cluster.refused.clear()
    cluster.settle()
    assert len(cluster.jobs) == 2


def test_a_finished_verdict_stays_though_everything_else_goes():
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
