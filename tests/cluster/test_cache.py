"""The cache of model files with real pods, in a claim, under the restricted Pod Security profile."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from devcluster import Environment
from devcluster.kubectl import Kubectl
from tests.cluster.conftest import install, resource, volume_claim

Wait = Callable[..., dict[str, Any]]
CLAIM = "model-cache"
MEMORY = Path("/dev/shm")
"""The cache leaves a share of its disk free, which the disk of a developer may not have."""
USER = 65532


@pytest.fixture(scope="module")
def cached(cluster: Environment, kubectl: Kubectl, namespace: str) -> Iterator[Path]:
    """The folder of the cache that all pods of the namespace mount, while the chart has the cache."""
    folder = MEMORY / f"tunesmith-model-cache-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    os.chown(folder, USER, USER)
    kubectl.apply(*volume_claim(namespace, CLAIM, folder, "ReadWriteMany"))
    install(cluster, cache={"claim": CLAIM, "maxBytes": "1Gi"})
    yield folder
    install(cluster)
    kubectl("delete", "persistentvolume", f"{namespace}-{CLAIM}", "--wait=false")
    shutil.rmtree(folder)


def fetch_log(kubectl: Kubectl, namespace: str, service: str) -> str:
    """The log of fetch in the pod of a service."""
    pods = json.loads(
        kubectl("get", "pods", f"--namespace={namespace}", f"--selector=tunesmith.dev/name={service}", "--output=json")
    )
    (pod,) = [pod["metadata"]["name"] for pod in pods["items"] if "deletionTimestamp" not in pod["metadata"]]
    return kubectl("logs", pod, f"--namespace={namespace}", "--container=fetch")


def test_the_second_service_of_a_model_reads_it_from_the_cache(
    cached: Path, kubectl: Kubectl, namespace: str, data: str, wait_for: Wait
) -> None:
    for number, name in enumerate(("first", "second")):
        kubectl.apply(resource("InferenceService", name, namespace, {"model": {"uri": f"{data}/model"}}))
        status = wait_for(f"inferenceservices.tunesmith.dev/{name}")
        assert status["phase"] == "Ready", status
        log = fetch_log(kubectl, namespace, name)
        assert f"{'1.0' if number else '0.0'} of 1.0 MB from the cache" in log, log
        with kubectl.port_forward(namespace, name, 80) as url:
            client = OpenAI(base_url=f"{url}/v1", api_key="none-needed")
            assert client.completions.create(model=name, prompt="What is", max_tokens=2).choices
    leases = list((cached / "leases").iterdir())
    assert {path.name.startswith(f"{namespace}.") for path in leases} == {True}
    assert len(leases) == 2
    kubectl("delete", "inferenceservices.tunesmith.dev", "first", "second", f"--namespace={namespace}", "--wait")
