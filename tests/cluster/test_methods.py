"""Methods other than sft, each through the operator, with real pods. A third of them run each day; all are deep tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from devcluster.kubectl import Kubectl
from tests import tinymodel
from tests.cluster.conftest import BUCKET, fine_tune_job, resource
from tests.unit.runtime.train.methods.preferences import feedback, preferences
from tests.unit.runtime.train.methods.texts import labelled, pairs

PROMPTS = [{"prompt": row["messages"][:1]} for row in tinymodel.rows(32)]
ROWS: dict[str, list[dict[str, Any]]] = {
    "dpo": preferences(128),
    "orpo": preferences(128),
    "simpo": preferences(128),
    "cpo": preferences(128),
    "kto": feedback(128),
    "reward": preferences(128),
    "classify": labelled(128),
    "embed": pairs(128),
    "rerank": pairs(128, negatives=True),
    "grpo": PROMPTS,
    "rloo": PROMPTS,
    "ppo": PROMPTS,
    "gkd": tinymodel.rows(128),
}
"""Rows by method."""
GROUPS: dict[str, Any] = {"numGenerations": 4, "maxCompletionLength": 8}
SETTINGS: dict[str, dict[str, Any]] = {
    "grpo": GROUPS,
    "rloo": GROUPS,
    "ppo": {"epochs": 4, "maxCompletionLength": 8},
    "gkd": {"teacher": {"fineTuneJob": {"name": "teacher"}}, "maxCompletionLength": 8},
}
"""The block of a method."""
VOWEL: dict[str, Any] = {"name": "vowel", "type": "format", "pattern": "e"}
ARTIFACTS = {"reward": "rewardModel", "classify": "classifier", "embed": "embeddingModel", "rerank": "reranker"}
TURN = datetime.now(UTC).toordinal() % 3


def by_turns(methods: list[str]) -> list[Any]:
    """Each method as a parameter; those that do not run today are deep."""
    marks = ([] if index % 3 == TURN else [pytest.mark.deep] for index, _ in enumerate(methods))
    return [pytest.param(method, marks=mark) for method, mark in zip(methods, marks, strict=True)]


def put_rows(s3: Any, data: str, name: str, rows: list[dict[str, Any]]) -> str:
    """Upload rows, and return their URI."""
    body = "".join(json.dumps(row) + "\n" for row in rows)
    s3.put_object(Bucket=BUCKET, Key=f"{data.removeprefix(f's3://{BUCKET}/')}/{name}", Body=body.encode())
    return f"{data}/{name}"


@pytest.mark.parametrize("method", by_turns(list(ROWS)))
def test_a_model_is_trained(
    method: str, kubectl: Kubectl, namespace: str, data: str, s3: Any, wait_for: Callable[..., dict[str, Any]]
) -> None:
    uri = put_rows(s3, data, f"{method}.jsonl", ROWS[method])
    training = {"learningRate": 3e-3, "epochs": 1, "globalBatchSize": 16, "maxLength": 64}
    teacher = [fine_tune_job("teacher", namespace, data)] if method == "gkd" else []
    kubectl.apply(
        *teacher,
        fine_tune_job(
            method,
            namespace,
            data,
            method=method,
            datasets=[{"uri": uri, "format": "auto"}],
            training=training,
            **({method: SETTINGS[method]} if method in SETTINGS else {}),
            **({"rewards": [VOWEL]} if ROWS[method] is PROMPTS else {}),
        ),
    )
    status = wait_for(f"finetunejob/{method}")
    assert status["phase"] == "Succeeded", status
    assert status["rows"]["kept"] == len(ROWS[method])
    assert status["metrics"]["steps"] == 8  # 128 rows, or 32 prompts with 4 completions each, or with one for 4 passes
    assert [artifact["name"] for artifact in status["artifacts"]] == [ARTIFACTS.get(method, "model")]


def test_a_model_pretrained_on_text_is_evaluated(
    kubectl: Kubectl, namespace: str, data: str, s3: Any, wait_for: Callable[..., dict[str, Any]]
) -> None:
    rows = [
        {"text": " ".join(message["content"] for message in row["messages"])} for row in tinymodel.rows(512, seed=1)
    ]
    kubectl.apply(
        fine_tune_job(
            "text", namespace, data, method="pretrain", datasets=[{"uri": put_rows(s3, data, "text.jsonl", rows)}]
        ),
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
