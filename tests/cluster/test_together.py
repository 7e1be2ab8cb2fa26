"""Two pods train a model together. When one is killed, both end, and the next two resume from the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from devcluster.kubectl import Kubectl
from tests.cluster.conftest import fine_tune_job

Wait = Callable[..., dict[str, Any]]


@pytest.mark.deep
def test_two_pods_train_together_and_survive_the_loss_of_a_pod(
    kubectl: Kubectl, namespace: str, data: str, wait_for: Wait
) -> None:
    training = {"epochs": 12, "learningRate": 0.001, "globalBatchSize": 8, "maxLength": 64}
    job = fine_tune_job(
        "wide", namespace, data, training=training, checkpoint={"everySteps": 50}, parallelism={"nodes": 2}
    )
    kubectl.apply(job)
    saved = wait_for("finetunejob/wide", lambda status: (status.get("lastCheckpoint") or {}).get("step", 0) >= 50)
    assert saved["phase"] == "Running"
    of_pod_1 = "batch.kubernetes.io/job-name=wide-tune-1,batch.kubernetes.io/job-completion-index=1"
    kubectl("delete", "pods", f"--namespace={namespace}", f"--selector={of_pod_1}", "--wait=false")

    status = wait_for("finetunejob/wide", minutes=10)

    assert status["phase"] == "Succeeded", json.dumps(status, indent=1)
    assert status["attempt"] == 2
    assert status["resumedFromStep"] >= saved["lastCheckpoint"]["step"]
    assert status["metrics"]["steps"] == 12 * 512 // 8
    assert {artifact["name"] for artifact in status["artifacts"]} == {"model"}
    assert status["lastFailure"]["class"] == "Preempted", "not that the other pod lost touch with it"
