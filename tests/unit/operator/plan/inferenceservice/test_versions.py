"""Versions: exact pod templates that are recorded and reused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.plan.inferenceservice.support import (
    change,
    deployed,
    engine,
    fail,
    ready,
    serve_pod,
    serving,
    template,
    upgrade,
    version,
)
from tests.unit.operator.plan.world import (
    CONFIG,
    Cluster,
    condition,
    inference_service,
    with_engines,
    with_spec,
)
from tunesmith_operator.plan.types import Key


def _twin(cluster: Cluster) -> Cluster:
    twin = Cluster(cluster.resource)
    twin.settle()
    return twin


def test_replicas_do_not_make_a_version():
    cluster = Cluster(inference_service(replicas=1))
    cluster.settle()
    ready(cluster)
    old = version(cluster)
    cluster.resource = with_spec(cluster.resource, replicas=5)
    cluster.settle()
    assert cluster.deployments["support"]["spec"]["replicas"] == 5
    assert version(cluster) == old
    assert cluster.status["phase"] == "Ready"
    assert cluster.condition("Ready")["status"] == "True"
    assert cluster.condition("Reconciling")["status"] == "True"


def test_a_new_runtime_image_is_a_new_version():
    cluster = Cluster(inference_service())
    cluster.settle()
    old = version(cluster)
    images = CONFIG.images.model_copy(update={"runtime": "registry/runtime:2"})
    cluster.config = CONFIG.model_copy(update={"images": images})
    cluster.settle()
    assert version(cluster) != old


def test_engine_auto_keeps_the_engine_that_answers() -> None:
    cluster = serving(resources={"accelerator": "nvidia"})
    before = template(cluster)
    assert engine(cluster) == "lmdeploy"
    for engines in ({}, {"vllm": "registry/vllm:1"}, {"lmdeploy": "registry/lmdeploy:2"}):
        cluster.config = with_engines(engines)
        cluster.settle()
        change(cluster, replicas=2)
        assert template(cluster) == before
        assert engine(cluster) == "lmdeploy"


def test_the_next_version_has_the_first_engine_that_has_an_image_then() -> None:
    cluster = serving(resources={"accelerator": "nvidia"})
    cluster.config = with_engines({"sglang": "registry/sglang:1"})
    change(cluster, restart="now")
    assert engine(cluster) == "sglang"


def test_a_named_engine_is_rolled_out_although_another_answers() -> None:
    cluster = serving(resources={"accelerator": "nvidia"})
    change(cluster, engine="transformers")
    assert engine(cluster) == "transformers"


def test_a_version_that_was_never_ready_gets_the_engine_that_has_an_image_now() -> None:
    cluster = Cluster(inference_service(resources={"accelerator": "nvidia"}), config=with_engines({}))
    cluster.settle()
    assert engine(cluster) == "transformers"
    cluster.config = CONFIG
    cluster.settle()
    assert engine(cluster) == "lmdeploy"


def test_an_upgrade_of_the_operator_does_not_change_a_ready_version() -> None:
    cluster = serving()
    before = template(cluster)
    upgrade(cluster)
    assert template(cluster) == before
    assert cluster.status["phase"] == "Ready"
    change(cluster, restart="2026-11-22")
    assert template(cluster)["spec"]["containers"][0]["image"] == "registry/runtime:2"


def test_an_upgrade_does_not_change_a_partly_ready_version() -> None:
    cluster = Cluster(inference_service(replicas=2))
    cluster.settle()
    before = template(cluster)
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=2)
    serve_pod(cluster, {}, conditions=[condition("Ready")])
    upgrade(cluster)
    assert template(cluster) == before


def test_an_upgrade_replaces_a_version_that_was_never_ready() -> None:
    cluster = Cluster(inference_service())
    cluster.settle()
    upgrade(cluster)
    assert template(cluster)["spec"]["containers"][0]["image"] == "registry/runtime:2"


def test_the_version_of_a_release_without_records_is_adopted_unchanged() -> None:
    """Templates of release 0.1.0: their preStop hook is in no template of today."""
    cluster = serving()
    cluster.revisions.clear()
    old = cluster.deployments["support"]["spec"]["template"]
    old["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}}
    before = template(cluster)
    upgrade(cluster)
    assert template(cluster) == before
    [revision] = cluster.revisions.values()
    assert revision["data"]["template"] == before
    change(cluster, maxModelLength=512)
    assert "lifecycle" not in template(cluster)["spec"]["containers"][0]
    fail(cluster)
    assert template(cluster) == before


def test_each_version_is_recorded_before_its_deployment_and_old_records_are_deleted() -> None:
    cluster = Cluster(inference_service())
    first = cluster.plan()
    assert [manifest["kind"] for manifest in first.create] == ["ControllerRevision"]
    cluster.settle()
    ready(cluster)
    for length in (128, 256):
        change(cluster, maxModelLength=length)
        assert len(cluster.revisions) == 2, "the version that answers and the new version"
        ready(cluster)
        assert list(cluster.revisions) == [f"support-{version(cluster)}"]
    assert cluster.reconcile().is_empty


def test_a_deleted_record_is_created_again() -> None:
    cluster = serving()
    cluster.revisions.clear()
    cluster.settle()
    assert list(cluster.revisions) == [f"support-{version(cluster)}"]


@pytest.mark.parametrize(
    "data", [None, "x", [], {"template": 3}, {"template": {}}, {"template": {"metadata": 1}}], ids=str
)
def test_a_malformed_record_is_ignored(data: Any) -> None:
    cluster = serving()
    before = template(cluster)
    cluster.revisions["support-000000000000"] = {"metadata": {"name": "support-000000000000"}, "data": data}
    cluster.settle()
    assert template(cluster) == before
    assert list(cluster.revisions) == [f"support-{version(cluster)}"]


def test_a_rejected_record_does_not_keep_a_version_from_being_served() -> None:
    cluster = Cluster(inference_service())
    cluster.refused[Key("ControllerRevision", f"support-{version(_twin(cluster))}")] = "exceeded quota: few"
    cluster.settle()
    assert "support" in cluster.deployments
    assert cluster.status["lastFailure"]["class"] == "QuotaExceeded"
