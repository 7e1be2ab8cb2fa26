"""What bad input gets, with real pods against the real store: one class, one sentence, what to do; no retry storm."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from devcluster import Environment
from devcluster.kubectl import CREDENTIALS_SECRET, Kubectl
from tests.cluster.conftest import BUCKET, fine_tune_job
from tests.s3 import S3Server, run_self_signed_server

Wait = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A FineTuneJob that cannot work: what is put over a good spec, the class it ends with, and what the message names."""

    failure: str
    says: str
    model: str = "model"
    rows: str = "train.jsonl"
    storage: dict[str, Any] | None = None
    """`SELF_SIGNED` as its endpoint stands for the URL of a server whose certificate no authority has signed."""


SELF_SIGNED = "self-signed"

CASES = {
    "model-absent": Case("ModelNotFound", "no-such-model", model="no-such-model"),
    "bucket-absent": Case("ModelNotFound", "no-such-bucket", model="s3://no-such-bucket/model"),
    "data-absent": Case("DatasetNotFound", "no-such.jsonl", rows="no-such.jsonl"),
    "broken-row": Case("BadRow", "line 17", rows="broken.jsonl"),
    "no-rows": Case("EmptyDataset", "empty.jsonl", rows="empty.jsonl"),
    "pickle-weights": Case("UnsafeWeights", "pytorch_model.bin", model="pickle"),
    "no-chat-template": Case("ChatTemplateMissing", "chat template", model="untemplated"),
    "wrong-credentials": Case("Storage403", "s3://", storage={"credentialsSecret": "tunesmith-wrong"}),
    "dead-endpoint": Case("StorageUnreachable", "127.0.0.1:9", storage={"endpoint": "http://127.0.0.1:9"}),
    "self-signed": Case("StorageTLS", "certificate", storage={"endpoint": SELF_SIGNED}),
    "self-signed-and-trusted": Case(
        "ModelNotFound",
        "no-such-bucket",
        model="s3://no-such-bucket/model",
        storage={
            "endpoint": SELF_SIGNED,
            "credentialsSecret": "tunesmith-self-signed",
            "caBundle": {"name": "self-signed"},
        },
    ),
}


@pytest.fixture(scope="module")
def bad_data(data: str, s3: Any) -> str:
    """The good data with bad files beside them."""
    prefix = data.removeprefix(f"s3://{BUCKET}/")
    lines = s3.get_object(Bucket=BUCKET, Key=f"{prefix}/train.jsonl")["Body"].read().decode().splitlines()[:32]
    lines[16] = '{"messages": [{"role": "user", "content": "What is a kiwi?"'
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/broken.jsonl", Body="\n".join(lines).encode())
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/empty.jsonl", Body=b"")
    for entry in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/model/")["Contents"]:
        name = entry["Key"].rpartition("/")[2]
        source = {"Bucket": BUCKET, "Key": entry["Key"]}
        if name == "chat_template.jinja":
            continue
        s3.copy_object(Bucket=BUCKET, Key=f"{prefix}/untemplated/{name}", CopySource=source)
        if not name.endswith(".safetensors"):
            s3.copy_object(Bucket=BUCKET, Key=f"{prefix}/pickle/{name}", CopySource=source)
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/pickle/pytorch_model.bin", Body=b"\x80\x04N.")
    return data


@pytest.fixture(scope="module")
def self_signed(cluster: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Beside the cluster's own S3 server, where pods reach it."""
    host = urlsplit(cluster.s3_endpoint).hostname
    assert host
    yield from run_self_signed_server(tmp_path_factory.mktemp("self-signed"), host)


@pytest.fixture(scope="module")
def statuses(
    kubectl: Kubectl, namespace: str, bad_data: str, self_signed: S3Server, wait_for: Wait
) -> dict[str, dict[str, Any]]:
    """How every case ended; all are applied at once."""
    secrets = {
        "tunesmith-wrong": ("wrong-key-id", "wrong-secret-key"),
        "tunesmith-self-signed": self_signed.keys,
    }
    for name, (access_key, secret_key) in secrets.items():
        kubectl(
            "create", "secret", "generic", name, f"--namespace={namespace}",
            f"--from-literal=AWS_ACCESS_KEY_ID={access_key}", f"--from-literal=AWS_SECRET_ACCESS_KEY={secret_key}",
        )  # fmt: skip
    kubectl(
        "create", "configmap", "self-signed", f"--namespace={namespace}",
        f"--from-file=ca.crt={self_signed.ca_bundle}",
    )  # fmt: skip
    for name, case in CASES.items():
        storage = {**case.storage} if case.storage else {}
        if storage.get("endpoint") == SELF_SIGNED:
            storage["endpoint"] = self_signed.endpoint
        model = case.model if case.model.startswith("s3://") else f"{bad_data}/{case.model}"
        spec = {"model": {"uri": model}, "datasets": [{"uri": f"{bad_data}/{case.rows}"}]}
        kubectl.apply(fine_tune_job(name, namespace, bad_data, **spec, **({"storage": storage} if storage else {})))
    return {name: wait_for(f"finetunejob/{name}") for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_the_status_tells_the_true_cause_and_what_to_do(name: str, statuses: dict[str, dict[str, Any]]) -> None:
    status, case = statuses[name], CASES[name]
    assert status["phase"] == "Failed"
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    assert (conditions["Succeeded"]["status"], conditions["Succeeded"]["reason"]) == ("False", case.failure)
    failure = status["lastFailure"]
    assert failure["class"] == case.failure, json.dumps(failure, indent=1)
    assert case.says in failure["message"]
    assert failure["hint"]
    assert failure["pod"].startswith(f"{name}-tune-1")


def test_nothing_is_tried_again(statuses: dict[str, dict[str, Any]], kubectl: Kubectl, namespace: str) -> None:
    jobs = json.loads(kubectl("get", "jobs", f"--namespace={namespace}", "--output=json"))["items"]
    assert sorted(job["metadata"]["name"] for job in jobs) == sorted(f"{name}-tune-1" for name in CASES)


def test_nothing_half_written_is_left_in_the_store(
    statuses: dict[str, dict[str, Any]], s3: Any, namespace: str
) -> None:
    left = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"store/runs/{namespace}/").get("Contents", [])
    assert [entry["Key"] for entry in left] == []


def test_no_status_shows_a_secret(statuses: dict[str, dict[str, Any]], kubectl: Kubectl, namespace: str) -> None:
    secrets = [
        kubectl.get(namespace, f"secret/{name}")["data"]
        for name in (CREDENTIALS_SECRET, "tunesmith-wrong", "tunesmith-self-signed")
    ]
    values = [base64.b64decode(value).decode() for data in secrets for value in data.values()]
    assert len(values) == 6
    assert not [name for name, status in statuses.items() for value in values if value in json.dumps(status)]
