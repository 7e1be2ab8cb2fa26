"""Names that a namespace's own ConfigMap gives to models and data, with real pods and a real volume."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from devcluster.kubectl import Kubectl
from tests import tinymodel
from tests.cluster.conftest import BUCKET, fine_tune_job

SHORT = {"maxSteps": 2, "learningRate": 0.005, "globalBatchSize": 16, "maxLength": 64}


def test_a_job_names_its_model_and_rows_by_the_config_map_of_its_namespace(
    kubectl: Kubectl, namespace: str, data: str, s3: Any, wait_for: Callable[..., dict[str, Any]]
) -> None:
    turns = [[message["content"] for message in row["messages"][-2:]] for row in tinymodel.rows(64, seed=3)]
    body = "".join(json.dumps({"input": question, "output": answer}) + "\n" for question, answer in turns)
    s3.put_object(Bucket=BUCKET, Key=f"{data.removeprefix(f's3://{BUCKET}/')}/pairs.jsonl", Body=body.encode())
    entries = {
        "models.yaml": f"team-tiny: {data}/model\n",
        "datasets.yaml": f"my_pairs: {{train: {data}/pairs.jsonl, "
        'format: {prompt: "{input}", completion: "{output}"}}\n',
    }
    metadata = {"name": "tunesmith-catalogue", "namespace": namespace}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": entries},
        fine_tune_job(
            "named", namespace, data, model={"name": "team-tiny"}, datasets=[{"name": "my_pairs"}], training=SHORT
        ),
        fine_tune_job("misspelled", namespace, data, model={"name": "team-tyni"}, training=SHORT),
    )
    named, misspelled = wait_for("finetunejob/named"), wait_for("finetunejob/misspelled")
    assert named["phase"] == "Succeeded", named
    assert named["rows"]["kept"] == 64
    assert named["model"]["uri"] == f"{data}/model"
    failure = misspelled["lastFailure"]
    assert failure["class"] == "ModelNotFound", failure
    assert "looked up in ConfigMap tunesmith-catalogue key models.yaml, " in failure["message"]
    assert "write team-tiny, " in failure["hint"]
