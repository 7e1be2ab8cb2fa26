"""With the real Kueue and real pods, a preempted job resumes from its checkpoint when it is admitted again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devcluster import Environment
from devcluster.kubectl import Kubectl, install_chart
from devcluster.paths import cache_paths
from tests.cluster.conftest import BUCKET, fine_tune_job
from tests.kueue import kueue, queues

pytestmark = pytest.mark.deep

Wait = Callable[..., dict[str, Any]]
URGENT = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}, "value": 1000}
READING = {"kueue": {"enabled": True}, "podPolicy": {"priorityClasses": ["urgent"]}}


@pytest.fixture(scope="module", autouse=True)
def queue_controller(
    cluster: Environment, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Run Kueue, and the chart with the right to read Workloads. The chart of the other tests is restored afterwards."""
    paths = cache_paths()
    images, store = json.loads((paths.cache / "images.json").read_text()), f"s3://{BUCKET}/store"
    install_chart(cluster, images, store_uri=store, values=READING)
    kubectl.apply(URGENT)
    with kueue(paths, cluster.kubeconfig, tmp_path_factory.mktemp("kueue")):
        yield
    kubectl("delete", "priorityclass", "urgent")
    install_chart(cluster, images, store_uri=store)


def test_a_preempted_job_is_admitted_again_and_resumes_at_its_checkpoint(
    kubectl: Kubectl, namespace: str, data: str, wait_for: Wait
) -> None:
    kubectl.apply(*queues("cpus", {"cpu": "600m"}, namespace))
    training = {"epochs": 12, "learningRate": 0.001, "globalBatchSize": 8, "maxLength": 64}
    often = {"everySteps": 50}
    kubectl.apply(fine_tune_job("long", namespace, data, training=training, checkpoint=often, queueName="cpus"))
    saved = wait_for("finetunejob/long", lambda status: (status.get("lastCheckpoint") or {}).get("step", 0) >= 50)
    assert saved["phase"] == "Running"

    urgent = {"queueName": "cpus", "pod": {"priorityClassName": "urgent"}}
    kubectl.apply(fine_tune_job("hurry", namespace, data, training={**training, "epochs": 1}, **urgent))
    queued = wait_for("finetunejob/long", lambda status: "Preempted to accommodate" in status.get("waitingFor", ""))
    assert queued["phase"] == "Queued"
    assert queued["preemptions"] == 1
    assert wait_for("finetunejob/hurry")["phase"] == "Succeeded"

    status = wait_for("finetunejob/long")
    assert status["phase"] == "Succeeded", json.dumps(status, indent=1)
    assert [(row["number"], row["outcome"]) for row in status["attempts"]] == [(1, "Preempted"), (1, "Succeeded")]
    assert status["resumedFromStep"] >= saved["lastCheckpoint"]["step"]
    assert status["metrics"]["steps"] == 12 * 512 // 8
    assert status["preemptions"] == 1
    assert "failures" not in status
