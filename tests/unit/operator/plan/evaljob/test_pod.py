"""The pod of an EvalJob: its engine and the scoring hash."""

from __future__ import annotations

import pytest

from tests.unit.operator.plan.evaljob.support import BASE, TUNED_MODEL, begun, run_spec_of, score
from tests.unit.operator.plan.world import (
    CONFIG,
    Cluster,
    ended,
    eval_job,
    with_engines,
)


def test_the_hash_of_the_scoring_depends_neither_on_the_model_nor_on_the_gates():
    first = begun(model=TUNED_MODEL, baseline=BASE, gates=[{"benchmark": "support-qa", "min": 0.1}])
    other = begun()
    more = begun(generation={"maxTokens": 64})
    hashes = [run_spec_of(cluster, "support-eval-model-1")["specHash"] for cluster in (first, other, more)]
    assert hashes[0] == run_spec_of(first, "support-eval-baseline-1")["specHash"] == hashes[1]
    assert hashes[2] != hashes[0]


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


def test_a_started_evaluation_keeps_its_engine_when_another_gets_an_image():
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
