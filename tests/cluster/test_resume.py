"""A pod killed while it trains costs no more than the time since the last checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from devcluster.kubectl import Kubectl
from tests.cluster.conftest import fine_tune_job

Wait = Callable[..., dict[str, Any]]


def test_a_deleted_training_pod_is_replaced_and_resumes_from_its_checkpoint(
    kubectl: Kubectl, namespace: str, data: str, wait_for: Wait
) -> None:
    training = {"epochs": 12, "learningRate": 0.001, "globalBatchSize": 8, "maxLength": 64}
    kubectl.apply(fine_tune_job("long", namespace, data, training=training, checkpoint={"everySteps": 50}))
    saved = wait_for("finetunejob/long", lambda status: (status.get("lastCheckpoint") or {}).get("step", 0) >= 50)
    assert saved["phase"] == "Running"
    kubectl("delete", "pods", f"--namespace={namespace}", "--selector=tunesmith.dev/name=long", "--wait=false")

    status = wait_for("finetunejob/long")

    assert status["phase"] == "Succeeded", json.dumps(status, indent=1)
    assert status["attempt"] == 2
    assert status["resumedFromStep"] >= saved["lastCheckpoint"]["step"]
    assert status["metrics"]["steps"] == 12 * 512 // 8
