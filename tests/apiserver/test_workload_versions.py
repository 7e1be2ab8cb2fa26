"""The operator reads Workloads in the version that the API server serves, by the CRDs of two Kueue releases.

Kueue itself does not run: the test writes the Workloads that it would write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.paths import cache_paths
from devcluster.standalone import ControlPlane
from tests.apiserver.chart import VALUES, render, without_workloads
from tests.apiserver.cluster import Cluster, Raw
from tests.apiserver.conftest import StartOperator
from tests.apiserver.finetunejobs import tune
from tests.kueue import workload_crd
from tunesmith_operator.plan.pods.read import is_true
from tunesmith_operator.workloads import NOT_SERVED

pytestmark = pytest.mark.deep

RELEASE = "workload-versions"
CRD = "workloads.kueue.x-k8s.io"
TIME = "2026-01-02T03:04:05Z"
LACK = "insufficient unused quota for nvidia.com/gpu"


@pytest.fixture(autouse=True)
def without_crd(plane: ControlPlane) -> Iterator[None]:
    yield
    Cluster(plane, None, "default").kubectl("delete", "crd", CRD, "--ignore-not-found", "--wait")  # type: ignore[arg-type]


def serve_workloads(cluster: Cluster, kueue: str, version: str) -> None:
    """Replace the CRD of Workloads, and with it all Workloads."""
    cluster.kubectl("delete", "crd", CRD, "--ignore-not-found", "--wait")
    crd = json.dumps(workload_crd(cache_paths(), kueue, version))
    cluster.kubectl("apply", "--server-side", "--filename", "-", stdin=crd)
    cluster.until(f"{version} is served", lambda: is_served(cluster, version))


def workloads(cluster: Cluster, version: str) -> str:
    return f"/apis/kueue.x-k8s.io/{version}/namespaces/{cluster.namespace}/workloads"


def is_served(cluster: Cluster, version: str) -> bool:
    groups = {group["name"]: group["versions"] for group in cluster.request("GET", "/apis")["groups"]}
    crd = cluster.request("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD}")
    served = [each["version"] for each in groups.get("kueue.x-k8s.io", ())]
    return version in served and is_true(crd, "Established")


def write_workload(cluster: Cluster, version: str, job: Raw) -> None:
    """Write the Workload of a Job that has no quota, and whose admission check is pending."""
    path = workloads(cluster, version)
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "registry/runtime:1"}]}
    workload = {
        "apiVersion": f"kueue.x-k8s.io/{version}",
        "kind": "Workload",
        "metadata": {"name": "job", "labels": {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}},
        "spec": {
            "queueName": "gpus",
            "active": False,
            "podSets": [{"name": "main", "count": 1, "template": {"spec": pod}}],
        },
    }
    created = cluster.request("POST", path, workload)
    reserved = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": LACK}
    check = {"name": "nodes", "state": "Pending", "message": "waiting for nodes", "lastTransitionTime": TIME}
    status = {"conditions": [{**reserved, "lastTransitionTime": TIME}], "admissionChecks": [check]}
    written = cluster.request("PUT", f"{path}/job/status", {**created, "status": status})
    assert written["spec"]["active"] is False
    assert written["status"] == status, "the API server drops fields that a version does not have"


def until_waits_for(cluster: Cluster, text: str) -> None:
    def is_shown() -> bool:
        status = (cluster.get("FineTuneJob", "support") or {}).get("status") or {}
        return text in str(status.get("waitingFor"))

    cluster.until(f"waitingFor has {text!r}", is_shown)


def test_workloads_are_read_in_the_served_version_also_after_an_upgrade_of_kueue(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    values: dict[str, Any] = {
        "scope": {"namespaces": [cluster.namespace]},
        "crds": {"enabled": False},
        "kueue": {"enabled": True},
    }
    manifests = render(cluster.plane, {**VALUES, **values}, RELEASE)
    cluster.kubectl("apply", "--filename", "-", stdin=without_workloads(manifests))
    cluster.until("the operator leads", start_operator(release=RELEASE, **values).leads)
    tune(cluster, "support", queueName="gpus")
    until_waits_for(cluster, NOT_SERVED)
    job = cluster.job("support-tune-1")

    serve_workloads(cluster, "v0.10.1", "v1beta1")
    write_workload(cluster, "v1beta1", job)
    until_waits_for(cluster, f"LocalQueue gpus: {LACK}; it is deactivated")

    serve_workloads(cluster, "v0.17.0", "v1beta2")
    until_waits_for(cluster, "LocalQueue gpus to admit it")
    write_workload(cluster, "v1beta2", job)
    until_waits_for(cluster, f"LocalQueue gpus: {LACK}; it is deactivated")
