"""Models and data in PersistentVolumeClaims, with real pods under the restricted Pod Security profile."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.kubectl import Kubectl
from devcluster.paths import cache_paths
from tests import tinymodel
from tests.cluster.conftest import fine_tune_job, resource, volume_claim

Wait = Callable[..., dict[str, Any]]
CLAIM = "team"


@pytest.fixture(scope="module")
def volume() -> Iterator[Path]:
    """A folder of the node with the tiny model and rows that every user may read."""
    folder = cache_paths().cache / f"volume-{uuid.uuid4().hex[:8]}"
    tinymodel.make_model(folder / "model")
    tinymodel.write_rows(folder / "train.jsonl", tinymodel.rows(512, seed=1))
    tinymodel.write_rows(folder / "test.jsonl", tinymodel.rows(64, seed=2))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (folder / "private.jsonl").write_bytes((folder / "train.jsonl").read_bytes())
    (folder / "private.jsonl").chmod(0o600)
    (folder / "outside.jsonl").symlink_to("/etc/passwd")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def provide(kubectl: Kubectl, namespace: str, volume: Path) -> Iterator[Callable[[], None]]:
    """Creates the claim `team` with the folder as its volume; the volume is removed after the tests."""
    yield lambda: kubectl.apply(*volume_claim(namespace, CLAIM, volume, "ReadOnlyMany"))
    kubectl("delete", "persistentvolume", f"{namespace}-{CLAIM}", "--ignore-not-found", "--wait=false")


def job(namespace: str, name: str, rows: str = "train.jsonl", **spec: Any) -> dict[str, Any]:
    """A FineTuneJob whose model and rows are in the volume."""
    return fine_tune_job(name, namespace, f"pvc://{CLAIM}", datasets=[{"uri": f"pvc://{CLAIM}/{rows}"}], **spec)


@pytest.fixture(scope="module")
def tuned(kubectl: Kubectl, namespace: str, provide: Callable[[], None], wait_for: Wait) -> dict[str, Any]:
    """The status of a job that was applied before its claim existed; `waiting` is its status before."""
    kubectl.apply(
        job(
            namespace,
            "kinds",
            tuner="lora",
            export={"merge": False},
            training={"epochs": 3, "learningRate": 0.003, "globalBatchSize": 16, "maxLength": 64},
        )
    )
    waiting = wait_for("finetunejob/kinds", lambda status: status.get("lastFailure"), minutes=2)
    provide()
    return {**wait_for("finetunejob/kinds"), "waiting": waiting}


def test_a_missing_claim_is_named_with_the_remedy_and_then_the_job_runs(tuned: dict[str, Any], namespace: str) -> None:
    waiting = tuned["waiting"]
    assert waiting["phase"] == "Pending", waiting
    assert waiting["lastFailure"]["class"] == "VolumeUnavailable"
    assert f'"{CLAIM}" not found' in waiting["lastFailure"]["message"]
    assert f"create PersistentVolumeClaim {CLAIM} in namespace {namespace}" in waiting["lastFailure"]["hint"]
    assert tuned["phase"] == "Succeeded", tuned


def test_model_and_rows_are_read_from_the_volume(tuned: dict[str, Any]) -> None:
    assert tuned["model"]["uri"] == f"pvc://{CLAIM}/model"
    assert tuned["rows"]["kept"] == 512
    assert tuned["metrics"]["trainLoss"] < 3  # an untrained model's is ln(512) = 6.2


def test_the_adapter_is_scored_and_served_on_its_base_in_the_volume(
    tuned: dict[str, Any], kubectl: Kubectl, namespace: str, wait_for: Wait
) -> None:
    dataset = {"uri": f"pvc://{CLAIM}/test.jsonl", "type": "qa"}
    model = {"fineTuneJob": {"name": "kinds"}}
    kubectl.apply(
        resource(
            "EvalJob",
            "kinds",
            namespace,
            {
                "model": model,
                "benchmarks": [{"name": "kinds", "dataset": dataset}],
                "gates": [{"benchmark": "kinds", "min": 0.8}],
                "generation": {"maxTokens": 8},
            },
        ),
        resource("InferenceService", "kinds", namespace, {"model": model}),
    )
    scored, served = wait_for("evaljob/kinds"), wait_for("inferenceservices.tunesmith.dev/kinds")
    assert (scored["phase"], scored.get("verdict")) == ("Succeeded", "Passed"), scored
    assert served["phase"] == "Ready", served
    assert served["model"]["base"] == f"pvc://{CLAIM}/model"
    kubectl("delete", "inferenceservices.tunesmith.dev/kinds", f"--namespace={namespace}", "--wait")


@pytest.mark.parametrize(
    ("rows", "failure", "hint"),
    [
        ("private.jsonl", "Storage403", "chmod -R a+rX"),
        ("outside.jsonl", "BadSpec", "copy the file into the volume"),
        ("absent.jsonl", "DatasetNotFound", ""),
    ],
)
def test_rows_that_cannot_be_read_fail_with_the_cause(
    tuned: dict[str, Any], kubectl: Kubectl, namespace: str, wait_for: Wait, rows: str, failure: str, hint: str
) -> None:
    name = rows.partition(".")[0]
    kubectl.apply(job(namespace, name, rows))
    status = wait_for(f"finetunejob/{name}")
    assert status["phase"] == "Failed"
    found = status["lastFailure"]
    assert found["class"] == failure, json.dumps(found, indent=1)
    assert f"pvc://{CLAIM}/{rows}" in found["message"]
    assert hint in found["hint"]
