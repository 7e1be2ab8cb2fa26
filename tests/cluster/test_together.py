"""Two pods train a model together, and compute the losses of one pod. When one is killed, both end, and the next two resume from the
checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from devcluster.kubectl import Kubectl
from tests.cluster.conftest import BUCKET, fine_tune_job

Wait = Callable[..., dict[str, Any]]

DIVISIONS: dict[str, dict[str, Any]] = {
    "ddp": {},
    **{strategy: {"strategy": strategy} for strategy in ("fsdp", "zero2", "zero3")},
    "tensor": {"tensorParallel": 2},
    "pipeline": {"pipelineParallel": 2},
}
"""How two pods divide a training."""
ONE_PASS = {"epochs": 1, "learningRate": 0.001, "globalBatchSize": 16, "maxLength": 64, "precision": "fp32"}
STEPS = 512 // 16
TOLERANCE = 2e-5
"""Relative difference of the losses of two pods and of one, which add in another order."""


def losses(s3: Any, status: dict[str, Any]) -> list[float]:
    """The training loss of each step of a run."""
    key = f"{status['runUri'].removeprefix(f's3://{BUCKET}/')}/logs/metrics.jsonl"
    lines = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


@pytest.fixture(scope="module")
def losses_of_one_pod(kubectl: Kubectl, namespace: str, data: str, s3: Any, wait_for: Wait) -> list[float]:
    """The training loss of each step of a single pod."""
    kubectl.apply(fine_tune_job("alone", namespace, data, training=ONE_PASS))
    status = wait_for("finetunejob/alone")
    assert status["phase"] == "Succeeded", json.dumps(status, indent=1)
    return losses(s3, status)


@pytest.mark.deep
@pytest.mark.parametrize("division", DIVISIONS)
def test_two_pods_compute_the_losses_of_one(
    division: str, losses_of_one_pod: list[float], kubectl: Kubectl, namespace: str, data: str, s3: Any, wait_for: Wait
) -> None:
    name, parallelism = f"two-{division}", {"nodes": 2, **DIVISIONS[division]}
    kubectl.apply(fine_tune_job(name, namespace, data, training=ONE_PASS, parallelism=parallelism))

    status = wait_for(f"finetunejob/{name}", minutes=10)

    assert status["phase"] == "Succeeded", json.dumps(status, indent=1)
    assert status["attempt"] == 1
    found = losses(s3, status)
    assert len(found) == STEPS
    assert found == pytest.approx(losses_of_one_pod, rel=TOLERANCE)


@pytest.mark.deep
@pytest.mark.parametrize("division", ["ddp", "fsdp"])
def test_two_pods_train_together_and_survive_the_loss_of_a_pod(
    division: str, kubectl: Kubectl, namespace: str, data: str, wait_for: Wait
) -> None:
    name = f"wide-{division}"
    training = {"epochs": 12, "learningRate": 0.001, "globalBatchSize": 8, "maxLength": 64}
    parallelism = {"nodes": 2, **DIVISIONS[division]}
    job = fine_tune_job(
        name, namespace, data, training=training, checkpoint={"everySteps": 50}, parallelism=parallelism
    )
    kubectl.apply(job)
    saved = wait_for(f"finetunejob/{name}", lambda status: (status.get("lastCheckpoint") or {}).get("step", 0) >= 50)
    assert saved["phase"] == "Running"
    of_pod_1 = f"batch.kubernetes.io/job-name={name}-tune-1,batch.kubernetes.io/job-completion-index=1"
    kubectl("delete", "pods", f"--namespace={namespace}", f"--selector={of_pod_1}", "--wait=false")

    status = wait_for(f"finetunejob/{name}", minutes=10)

    assert status["phase"] == "Succeeded", json.dumps(status, indent=1)
    assert status["attempt"] == 2
    assert status["resumedFromStep"] >= saved["lastCheckpoint"]["step"]
    assert status["metrics"]["steps"] == 12 * 512 // 8
    assert {artifact["name"] for artifact in status["artifacts"]} == {"model"}
    assert status["lastFailure"]["class"] == "Preempted", "not that the other pod lost touch with it"
