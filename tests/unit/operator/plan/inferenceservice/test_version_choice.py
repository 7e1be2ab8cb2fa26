"""Which version a service should have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.operator.plan.inferenceservice.support import (
    TUNED_MODEL,
    change,
    engine,
    evaluated,
    fail,
    gated,
    ready,
    retuned,
    rolled_back,
    serving,
    template,
    upgrade,
    version,
)
from tests.unit.operator.plan.world import (
    Cluster,
    inference_service,
    tuned,
    with_engines,
    with_spec,
)
from tunesmith_operator.plan.types import Raw, Reference


def test_a_blocked_service_can_be_scaled():
    cluster = gated()
    ready(cluster)
    cluster.others[Reference("FineTuneJob", "support")] = retuned("e5")
    cluster.others[Reference("EvalJob", "check")] = evaluated("Failed", "e5")
    cluster.settle()
    old = version(cluster)
    cluster.resource = with_spec(cluster.resource, replicas=3)
    cluster.settle()
    assert cluster.deployments["support"]["spec"]["replicas"] == 3
    assert version(cluster) == old


def test_a_refused_spec_leaves_the_old_version_serving():
    cluster = Cluster(inference_service())
    cluster.settle()
    ready(cluster)
    old = version(cluster)
    cluster.resource = with_spec(cluster.resource, engine="vllm", replicas=2, resources={"accelerator": "nvidia"})
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "BadSpec")
    assert "images.engines.vllm" in cluster.status["message"]
    assert version(cluster) == old
    assert cluster.condition("Ready")["status"] == "True"


def test_a_version_that_was_given_up_is_not_retried_because_auto_resolves_to_another_engine() -> None:
    cluster = serving(resources={"accelerator": "nvidia"})
    before = template(cluster)
    change(cluster, maxModelLength=512)
    fail(cluster)
    ready(cluster)
    for engines in ({}, {"vllm": "registry/vllm:1"}):
        cluster.config = with_engines(engines)
        cluster.settle()
        assert cluster.status["phase"] == "RolledBack"
        assert template(cluster) == before
    change(cluster, engine="transformers")
    assert engine(cluster) == "transformers"


def test_auto_is_tried_after_a_named_engine_was_given_up() -> None:
    cluster = serving(resources={"accelerator": "nvidia"})
    cluster.config = with_engines({"vllm": "registry/vllm:1", "lmdeploy": "registry/lmdeploy:1"})
    change(cluster, engine="vllm", maxModelLength=512)
    fail(cluster)
    ready(cluster)
    assert engine(cluster) == "lmdeploy"
    assert cluster.status["phase"] == "RolledBack"
    change(cluster, engine="auto")
    assert cluster.status["phase"] == "RollingOut"
    assert engine(cluster) == "lmdeploy"


def test_scaling_suspending_or_an_upgrade_does_not_retry_a_version_that_was_given_up() -> None:
    cluster = rolled_back()
    before = template(cluster)
    for spec in ({"replicas": 3}, {"suspend": True}, {"suspend": False}, {"replicas": 0}, {"replicas": 1}):
        change(cluster, **spec)
        assert template(cluster) == before, spec
    upgrade(cluster)
    assert template(cluster) == before
    assert cluster.status["phase"] == "RolledBack"


@pytest.mark.parametrize(
    "spec",
    [
        {"maxModelLength": 256},
        {"restart": "1"},
        {"rollout": {"readyTimeout": "1h"}},
        {"rollout": {"strategy": "Recreate"}},
    ],
)
def test_a_change_of_the_request_or_its_rollout_is_tried(spec: Raw) -> None:
    cluster = rolled_back()
    good = version(cluster)
    change(cluster, **spec)
    assert version(cluster) != good
    assert cluster.status["phase"] == "RollingOut"
    assert "rolledBack" not in cluster.status
    assert cluster.condition("RolledBack") == {}


def test_another_model_is_tried_after_one_that_failed() -> None:
    cluster = gated()
    ready(cluster)
    for digest in ("e5", "f6"):
        cluster.others[Reference("FineTuneJob", "support")] = retuned(digest)
        cluster.others[Reference("EvalJob", "check")] = evaluated("Passed", digest)
        cluster.settle()
        assert (
            json.loads(template(cluster)["metadata"]["annotations"]["tunesmith.dev/run"])["models"]["base"]["digest"]
            == digest
        )
        fail(cluster)
        ready(cluster)
        assert cluster.status["phase"] == "RolledBack"
        assert cluster.status["model"]["digest"] == "d2"
        assert cluster.status["candidate"]["digest"] == digest


def test_setting_the_spec_back_ends_the_rollback() -> None:
    cluster = rolled_back()
    before = template(cluster)
    spec = {name: value for name, value in cluster.resource["spec"].items() if name != "maxModelLength"}
    cluster.resource = {**with_spec(cluster.resource), "spec": spec}
    cluster.settle()
    assert template(cluster) == before
    assert cluster.status["phase"] == "Ready"
    assert "rolledBack" not in cluster.status


@pytest.mark.parametrize("how", ["the model is awaited", "the model is barred"])
def test_a_deleted_deployment_is_created_again_with_the_last_ready_version(how: str) -> None:
    cluster = gated()
    ready(cluster)
    before = template(cluster)
    if how == "the model is awaited":
        cluster.others.clear()
    else:
        cluster.others[Reference("FineTuneJob", "support")] = retuned("e5")
        cluster.others[Reference("EvalJob", "check")] = evaluated("Failed", "e5")
    cluster.settle()
    cluster.deployments.clear()
    cluster.settle()
    assert template(cluster) == before


def test_a_new_version_waits_until_pods_are_desired() -> None:
    """Without pods nothing would count how long it takes."""
    cluster = serving()
    before = template(cluster)
    change(cluster, suspend=True)
    ready(cluster, 0)
    change(cluster, maxModelLength=512)
    assert template(cluster) == before
    assert cluster.status["candidate"] == {"uri": "s3://models/a"}
    change(cluster, suspend=False)
    assert version(cluster) != before["metadata"]["annotations"]["tunesmith.dev/version"]
    assert cluster.deployments["support"]["spec"]["replicas"] == 1


def adapted(engine: str, **tuning: Any) -> Cluster:
    """A service of a FineTuneJob that has published an adapter only, on a cluster that has vLLM."""
    cluster = Cluster(inference_service(model=TUNED_MODEL, engine=engine, resources={"accelerator": "nvidia"}))
    cluster.config = with_engines({"vllm": "registry/vllm:1"})
    job = tuned(**tuning)
    job["status"]["artifacts"] = [{"name": "adapter", "uri": "s3://store/adapter", "digest": "d4"}]
    cluster.others[Reference("FineTuneJob", "support")] = job
    cluster.settle()
    return cluster


@pytest.mark.parametrize("engine", ["vllm", "auto"])
@pytest.mark.parametrize(
    ("tuning", "why"),
    [
        ({"lora": {"modulesToSave": ["lm_head"]}}, "adapter support was trained with lm_head beside its layers"),
        ({"lora": {"trainableTokens": ["a"]}}, "trained with embeddings of tokens beside its layers"),
        ({"tuner": "dora"}, "adapter support is of tuner dora: only plain LoRA adapters are served"),
    ],
)
def test_an_adapter_that_its_engine_does_not_serve_is_refused_before_a_pod_has_a_device(
    tuning: Raw, why: str, engine: str
) -> None:
    cluster = adapted(engine, export={"merge": False}, **tuning)
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "BadSpec")
    assert why in cluster.status["message"]
    assert "export.merge: true" in cluster.status["message"]
    assert "support" not in cluster.deployments


@pytest.mark.parametrize(
    ("engine", "tuning"),
    [("transformers", {"lora": {"modulesToSave": ["lm_head"]}}), ("vllm", {"lora": {"rank": 8}}), ("vllm", {})],
)
def test_an_adapter_that_its_engine_serves_is_rolled_out(engine: str, tuning: Raw) -> None:
    assert "support" in adapted(engine, export={"merge": False}, **tuning).deployments
