"""The cache of model files in pods: who mounts it and how, and that it changes nothing while it is off."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.plan.world import CONFIG, Cluster, eval_job, fine_tune_job, inference_service, tuned
from tunesmith_operator.plan.config import CacheSettings, OperatorConfig
from tunesmith_operator.plan.pods.template import run_spec_of
from tunesmith_operator.plan.types import Raw, Reference

FOLDER: Raw = {"hostPath": "/var/cache/tunesmith", "maxBytes": "200Gi"}
READ_ONLY = [
    {"name": "cache", "mountPath": "/cache", "readOnly": True},
    {"name": "cache", "mountPath": "/cache-leases", "subPath": "leases"},
]
GPU: Raw = {"accelerator": "nvidia"}
RESOURCES: dict[str, Raw] = {
    "tuning": fine_tune_job(),
    "evaluation": eval_job(),
    "service": inference_service(),
}


def configured(cache: Raw, **changes: Any) -> OperatorConfig:
    return CONFIG.model_copy(update={"cache": CacheSettings.model_validate(cache), **changes})


def template(thing: Raw, config: OperatorConfig) -> Raw:
    """The first pod template of a resource."""
    cluster = Cluster(thing, config=config)
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.begin()
    manifests = [manifest for plan in cluster.plans for manifest in (*plan.create, *plan.apply)]
    return next(dict(manifest["spec"]["template"]) for manifest in manifests if "template" in manifest.get("spec", {}))


def cache_mounts(pod: Raw) -> dict[str, list[Raw]]:
    containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    return {
        container["name"]: [mount for mount in container["volumeMounts"] if mount["name"] == "cache"]
        for container in containers
    }


def volume(pod: Raw) -> Raw | None:
    return next((volume for volume in pod["spec"]["volumes"] if volume["name"] == "cache"), None)


@pytest.mark.parametrize("name", RESOURCES)
def test_fetch_fills_the_cache_and_the_others_read_it(name: str) -> None:
    pod = template(RESOURCES[name], configured(FOLDER))
    mounts = cache_mounts(pod)
    assert mounts.pop("fetch") == [{"name": "cache", "mountPath": "/cache"}]
    assert mounts
    assert all(mount == READ_ONLY for mount in mounts.values())
    assert volume(pod) == {
        "name": "cache",
        "hostPath": {"path": "/var/cache/tunesmith", "type": "DirectoryOrCreate"},
    }
    run = run_spec_of(pod)
    assert run is not None
    assert run.cache is not None
    assert (run.cache.path, run.cache.leases, run.cache.max_bytes) == ("/cache", "/cache-leases", "200Gi")


def test_a_claim_is_a_cache_for_a_namespace() -> None:
    pod = template(inference_service(), configured({"claim": "models"}))
    assert volume(pod) == {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}


@pytest.mark.parametrize("name", RESOURCES)
def test_without_a_cache_a_pod_is_as_before(name: str) -> None:
    pod = template(RESOURCES[name], configured({}))
    assert volume(pod) is None
    assert not any(cache_mounts(pod).values())
    assert "cache" not in pod["metadata"]["annotations"]["tunesmith.dev/run"]


def test_a_preparation_pod_has_no_cache() -> None:
    pod = template(fine_tune_job(resources=GPU), configured(FOLDER))
    assert list(cache_mounts(pod)) == ["prepare"]
    assert volume(pod) is None


def test_a_pod_that_runs_code_of_a_model_reads_no_files_of_others() -> None:
    trusted = inference_service(model={"uri": "s3://models/a", "trustRemoteCode": True})
    pod = template(trusted, configured(FOLDER, allow_trust_remote_code=True))
    assert volume(pod) is None
