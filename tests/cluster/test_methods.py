"""Methods other than sft, each through the operator, with real pods."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from devcluster.kubectl import Kubectl
from tests import tinymodel
from tests.cluster.conftest import BUCKET, fine_tune_job, resource


def test_a_model_pretrained_on_text_is_evaluated(
    kubectl: Kubectl, namespace: str, data: str, s3: Any, wait_for: Callable[..., dict[str, Any]]
) -> None:
    rows = [
        {"text": " ".join(message["content"] for message in row["messages"])} for row in tinymodel.rows(512, seed=1)
    ]
    body = "".join(json.dumps(row) + "\n" for row in rows)
    s3.put_object(Bucket=BUCKET, Key=f"{data.removeprefix(f's3://{BUCKET}/')}/text.jsonl", Body=body.encode())
    kubectl.apply(
        fine_tune_job("text", namespace, data, method="pretrain", datasets=[{"uri": f"{data}/text.jsonl"}]),
        resource(
            "EvalJob",
            "text",
            namespace,
            {
                "model": {"fineTuneJob": {"name": "text"}},
                "benchmarks": [{"name": "kinds", "dataset": {"uri": f"{data}/test.jsonl", "type": "qa"}}],
                "generation": {"maxTokens": 8},
            },
        ),
    )
    trained, evaluated = wait_for("finetunejob/text"), wait_for("evaljob/text")
    assert trained["phase"] == "Succeeded", trained
    assert trained["rows"]["kept"] == 512
    assert trained["metrics"]["trainLoss"] < 3  # an untrained model's is ln(512) = 6.2
    assert evaluated["phase"] == "Succeeded", evaluated
    assert evaluated["model"]["digest"] in {artifact["digest"] for artifact in trained["artifacts"]}
