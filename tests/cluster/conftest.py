"""Fixtures: the embedded cluster with the chart, a bucket with a tiny model, namespaces that are deleted afterwards."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from devcluster import Environment, environment
from devcluster.kubectl import Kubectl, install_chart, tenant_namespace
from devcluster.paths import cache_paths
from tests import tinymodel

BUCKET = "tunesmith-tests"
FINISHED = ("Succeeded", "Failed", "Ready")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("cluster")


@pytest.fixture(scope="session")
def cluster() -> Environment:
    """The cluster that `make test` has started."""
    return environment()


@pytest.fixture(scope="session")
def kubectl(cluster: Environment) -> Kubectl:
    """kubectl on a cluster with the chart of this checkout."""
    install(cluster)
    return Kubectl(cluster)


def install(cluster: Environment, **values: Any) -> None:
    """Install the chart of this checkout, or upgrade it to these values."""
    images = json.loads((cache_paths().cache / "images.json").read_text())
    dead_ends = {"podPolicy": {"endpoints": ["*"]}}
    install_chart(cluster, images, store_uri=f"s3://{BUCKET}/store", values=dead_ends | values)


def volume_claim(namespace: str, claim: str, folder: Path, access: str) -> list[dict[str, Any]]:
    """Manifests of a claim, and of a volume for it that is a folder of the node."""
    name, size = f"{namespace}-{claim}", {"storage": "1Gi"}
    volume = {
        "capacity": size,
        "accessModes": [access],
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "",
        "claimRef": {"namespace": namespace, "name": claim},
        "hostPath": {"path": str(folder), "type": "Directory"},
    }
    request = {"accessModes": [access], "storageClassName": "", "volumeName": name, "resources": {"requests": size}}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace},
            "spec": request,
        },
    ]


@pytest.fixture(scope="session")
def s3(cluster: Environment) -> Any:
    """A client of the cluster's S3 server, where the bucket of the tests exists."""
    client = boto3.client(
        "s3",
        endpoint_url=cluster.s3_endpoint,
        aws_access_key_id=cluster.s3_access_key,
        aws_secret_access_key=cluster.s3_secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture(scope="session")
def data(s3: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a new folder with `model/`, `train.jsonl` and `test.jsonl` of a task that the tiny model can learn."""
    local = tmp_path_factory.mktemp("tiny")
    tinymodel.make_model(local / "model")
    tinymodel.write_rows(local / "train.jsonl", tinymodel.rows(512, seed=1))
    tinymodel.write_rows(local / "test.jsonl", tinymodel.rows(64, seed=2))
    prefix = f"data/{uuid.uuid4().hex[:8]}"
    for path in sorted(local.rglob("*")):
        if path.is_file():
            s3.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(local)}")
    return f"s3://{BUCKET}/{prefix}"


@pytest.fixture(scope="module")
def namespace(cluster: Environment, kubectl: Kubectl) -> Iterator[str]:
    """A new namespace under the restricted Pod Security profile, with the store's credentials."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    kubectl.apply(*tenant_namespace(cluster, name))
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def wait_for(kubectl: Kubectl, namespace: str) -> Callable[..., dict[str, Any]]:
    """Waits until a resource's status satisfies a predicate (default: it is finished) and returns the status."""

    def wait(
        resource: str,
        until: Callable[[dict[str, Any]], Any] = lambda status: status.get("phase") in FINISHED,
        minutes: float = 8,
    ) -> dict[str, Any]:
        deadline = time.monotonic() + 60 * minutes
        status: dict[str, Any] = {}
        while time.monotonic() < deadline:
            status = kubectl.get(namespace, resource).get("status") or {}
            if until(status):
                return status
            time.sleep(1)
        pytest.fail(f"{resource} did not get there in {minutes} minutes: {json.dumps(status, indent=1)}")

    return wait


def resource(kind: str, name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A manifest of our API group."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "tunesmith.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def fine_tune_job(name: str, namespace: str, data: str, **spec: Any) -> dict[str, Any]:
    """A FineTuneJob that full-tunes the tiny model until it knows the task; `spec` overrides."""
    base = {
        "model": {"uri": f"{data}/model"},
        "datasets": [{"uri": f"{data}/train.jsonl"}],
        "tuner": "full",
        "training": {"epochs": 3, "learningRate": 0.005, "globalBatchSize": 16, "maxLength": 64},
        "retries": 0,
    }
    return resource("FineTuneJob", name, namespace, base | spec)
