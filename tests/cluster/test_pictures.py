"""A multimodal model is tuned on pictures, scored on others and served, with real pods."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from openai import OpenAI

from devcluster.kubectl import Kubectl
from tests import tinyvision
from tests.cluster.conftest import BUCKET, fine_tune_job, resource

pytestmark = pytest.mark.deep


@pytest.fixture(scope="module")
def pictures(s3: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a new folder with `model/`, and with rows and their pictures in `train/` and `test/`."""
    local = tmp_path_factory.mktemp("pictures")
    tinyvision.add_processor(tinyvision.make_model(local / "model", "qwen2_5_vl"), "qwen2_5_vl")
    for name, count, seed in (("train", 64, 1), ("test", 16, 2)):
        rows = tinyvision.picture_rows(local / name, count, seed)
        (local / name / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prefix = f"pictures/{uuid.uuid4().hex[:8]}"
    for path in sorted(local.rglob("*")):
        if path.is_file():
            s3.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(local)}")
    return f"s3://{BUCKET}/{prefix}"


def test_a_model_tuned_on_pictures_passes_its_gate_and_answers_about_an_uploaded_one(
    kubectl: Kubectl, namespace: str, pictures: str, wait_for: Callable[..., dict[str, Any]]
) -> None:
    kubectl.apply(
        fine_tune_job(
            "colours",
            namespace,
            pictures,
            datasets=[{"uri": f"{pictures}/train/", "format": "vqa"}],
            tuner="full",
            training={"epochs": 8, "learningRate": 0.003, "globalBatchSize": 16, "maxLength": 64},
        ),
        resource(
            "EvalJob",
            "colours",
            namespace,
            {
                "model": {"fineTuneJob": {"name": "colours"}},
                "baseline": {"uri": f"{pictures}/model"},
                "benchmarks": [{"name": "colours", "dataset": {"uri": f"{pictures}/test/", "type": "vqa"}}],
                "gates": [{"benchmark": "colours", "min": 0.8}, {"benchmark": "colours", "minImprovement": 0.5}],
                "generation": {"maxTokens": 8},
            },
        ),
        resource(
            "InferenceService",
            "colours",
            namespace,
            {"model": {"fineTuneJob": {"name": "colours"}}, "promotion": {"evalJobs": [{"name": "colours"}]}},
        ),
    )
    tuned = wait_for("finetunejob/colours")
    assert (tuned["phase"], tuned["rows"]["kept"]) == ("Succeeded", 64), tuned
    assert wait_for("evaljob/colours")["verdict"] == "Passed"
    assert wait_for("inferenceservice/colours")["phase"] == "Ready"
    with kubectl.port_forward(namespace, "colours", 80) as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="none-needed")
        for colour in tinyvision.COLOURS:
            address = f"data:image/png;base64,{base64.b64encode(tinyvision.picture(colour, seed=77)).decode()}"
            parts = [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": "what is it?"}]
            answer = client.chat.completions.create(
                model="colours", messages=[{"role": "user", "content": parts}], max_tokens=8, temperature=0
            )
            assert answer.choices[0].message.content == colour
