"""Bad input with real pods and the real store fails with a class, a message and a hint, and is not retried."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gguf
import pytest

from devcluster import Environment
from devcluster.kubectl import CREDENTIALS_SECRET, Kubectl
from tests import tinymodel
from tests.cluster.conftest import BUCKET, fine_tune_job, resource
from tests.limited_store import Answer, Request, limited
from tests.s3 import S3Server, run_self_signed_server

Wait = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A FineTuneJob that fails: the changes to a good spec, the class of the failure, and a part of its message."""

    failure: str
    message: str
    model: str = "model"
    rows: str = "train.jsonl"
    storage: dict[str, Any] | None = None
    """The endpoints `SELF_SIGNED` and `UNCONDITIONAL` are replaced by the URLs of such servers."""
    spec: dict[str, Any] = field(default_factory=dict)
    """Further fields of the spec."""


SELF_SIGNED = "self-signed"
"""A server with a self-signed certificate."""
UNCONDITIONAL = "unconditional"
"""A server that answers 501 to conditional writes."""
LAYERS = {"num_hidden_layers": 4, "layer_types": ["full_attention"] * 4}
TINY_RATE = {"learningRate": 1e-30, "globalBatchSize": 16, "maxLength": 64, "maxSteps": 2}

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
    "half-a-character": Case("BadRow", "line 3", rows="surrogate.jsonl"),
    "more-layers-than-weights": Case("BadModel", "layers.2", model="more-layers"),
    "tokens-without-embedding": Case("BadModel", "512", model="more-tokens"),
    "quantized-base": Case("BadSpec", "awq", model="quantized"),
    "half-a-template": Case("BadModel", "chat_template.jinja", model="half-a-template"),
    "split-gguf": Case("BadModel", "part 1 of 2", model="split"),
    "tied-target": Case(
        "BadSpec", "embed_tokens", spec={"tuner": "lora", "lora": {"targetModules": ["q_proj", "embed_tokens"]}}
    ),
    "no-effect": Case("NothingLearned", "2 steps", spec={"training": TINY_RATE}),
    "no-conditional-writes": Case(
        "StorageUnsupported", "lacks conditional writes", storage={"endpoint": UNCONDITIONAL}
    ),
    "newline-after-the-key": Case(
        "ModelNotFound",
        "no-such-bucket",
        model="s3://no-such-bucket/model",
        storage={"credentialsSecret": "tunesmith-newline"},
    ),
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
    """The good data, and bad files beside them."""
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
    half = json.dumps({"messages": [{"role": "user", "content": "\ud83d"}, {"role": "assistant", "content": "fruit"}]})
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/surrogate.jsonl", Body="\n".join([*lines[:2], half]).encode())
    return data


def more_tokens(folder: Path) -> dict[str, bytes]:
    """A tokenizer with 80 tokens for which the model has no embedding."""
    tokenizer = tinymodel.make_tokenizer()
    tokenizer.add_tokens([f"<field_{number}>" for number in range(80)])
    tokenizer.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def first_part(folder: Path) -> bytes:
    """A GGUF file that claims to be the first of two."""
    writer = gguf.GGUFWriter(folder / "split.gguf", "llama")
    for key, value in {"split.no": 0, "split.count": 2, "split.tensors.count": 4}.items():
        writer.add_uint16(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return (folder / "split.gguf").read_bytes()


@pytest.fixture(scope="module")
def bad_models(data: str, s3: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Copies of the good model, each with a single change."""
    prefix, folder = data.removeprefix(f"s3://{BUCKET}/"), tmp_path_factory.mktemp("models")
    entries = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/model/")["Contents"]
    good = {entry["Key"].rpartition("/")[2]: s3.get_object(Bucket=BUCKET, Key=entry["Key"]) for entry in entries}
    files = {name: found["Body"].read() for name, found in good.items()}
    config = json.loads(files["config.json"])
    quantized = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
    changed: dict[str, dict[str, bytes]] = {
        "more-layers": {"config.json": json.dumps({**config, **LAYERS}).encode()},
        "quantized": {"config.json": json.dumps({**config, "quantization_config": quantized}).encode()},
        "half-a-template": {"chat_template.jinja": b"{% for message in messages %}{{ message.content }}"},
        "more-tokens": more_tokens(folder),
    }
    for name, changes in changed.items():
        for file, content in {**files, **changes}.items():
            s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}/{file}", Body=content)
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/split/model-00001-of-00002.gguf", Body=first_part(folder))


@pytest.fixture(scope="module")
def self_signed(cluster: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server beside the cluster's own S3 server, on an address that pods reach."""
    host = urlsplit(cluster.s3_endpoint).hostname
    assert host
    yield from run_self_signed_server(tmp_path_factory.mktemp("self-signed"), host)


@pytest.fixture(scope="module")
def unconditional(cluster: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a proxy to the cluster's S3 server that rejects conditional writes."""
    folder = tmp_path_factory.mktemp("unused")
    server = S3Server(cluster.s3_endpoint, cluster.s3_access_key, cluster.s3_secret_key, folder)
    host = urlsplit(cluster.s3_endpoint).hostname
    assert host

    def refuse(request: Request) -> Answer | None:
        return Answer(501, "NotImplemented") if request.condition else None

    with limited(server, refuse, host) as proxy:
        yield proxy.endpoint


@pytest.fixture(scope="module")
def statuses(
    cluster: Environment, kubectl: Kubectl, namespace: str, bad_data: str, bad_models: None, self_signed: S3Server,
    unconditional: str, wait_for: Wait,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """The final status of every case. All are applied together."""
    secrets = {
        "tunesmith-wrong": ("wrong-key-id", "wrong-secret-key"),
        "tunesmith-newline": (f"{cluster.s3_access_key}\n", f" {cluster.s3_secret_key}\r\n"),
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
        servers = {SELF_SIGNED: self_signed.endpoint, UNCONDITIONAL: unconditional}
        if (endpoint := storage.get("endpoint")) in servers:
            storage["endpoint"] = servers[endpoint]
        model = case.model if case.model.startswith("s3://") else f"{bad_data}/{case.model}"
        spec = {"model": {"uri": model}, "datasets": [{"uri": f"{bad_data}/{case.rows}"}], **case.spec}
        kubectl.apply(fine_tune_job(name, namespace, bad_data, **spec, **({"storage": storage} if storage else {})))
    return {name: wait_for(f"finetunejob/{name}") for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_the_status_has_the_true_cause_and_a_hint(name: str, statuses: dict[str, dict[str, Any]]) -> None:
    status, case = statuses[name], CASES[name]
    assert status["phase"] == "Failed"
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    failure = status["lastFailure"]
    assert failure["class"] == case.failure, json.dumps(failure, indent=1)
    assert (conditions["Succeeded"]["status"], conditions["Succeeded"]["reason"]) == ("False", case.failure)
    assert case.message in failure["message"]
    assert failure["hint"]
    assert failure["pod"].startswith(f"{name}-tune-1")


def test_nothing_is_tried_again(statuses: dict[str, dict[str, Any]], kubectl: Kubectl, namespace: str) -> None:
    jobs = json.loads(kubectl("get", "jobs", f"--namespace={namespace}", "--output=json"))["items"]
    assert sorted(job["metadata"]["name"] for job in jobs) == sorted(f"{name}-tune-1" for name in CASES)


def test_no_incomplete_object_is_left_in_the_store(
    statuses: dict[str, dict[str, Any]], s3: Any, namespace: str
) -> None:
    left = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"store/runs/{namespace}/").get("Contents", [])
    assert [entry["Key"] for entry in left] == []


def test_no_status_shows_a_secret(statuses: dict[str, dict[str, Any]], kubectl: Kubectl, namespace: str) -> None:
    secrets = [
        kubectl.get(namespace, f"secret/{name}")["data"]
        for name in (CREDENTIALS_SECRET, "tunesmith-wrong", "tunesmith-newline", "tunesmith-self-signed")
    ]
    values = [base64.b64decode(value).decode() for data in secrets for value in data.values()]
    assert len(values) == 8
    assert not [name for name, status in statuses.items() for value in values if value.strip() in json.dumps(status)]


def test_a_service_of_an_inconsistent_model_fails_without_mention_of_memory(
    kubectl: Kubectl, namespace: str, bad_data: str, bad_models: None, wait_for: Wait
) -> None:
    spec = {"model": {"uri": f"{bad_data}/more-layers"}, "replicas": 1}
    kubectl.apply(resource("InferenceService", "more-layers", namespace, spec))
    status = wait_for("inferenceservices.tunesmith.dev/more-layers")
    assert (status["phase"], status["reason"]) == ("Failed", "BadModel")
    assert "layers.2" in status["lastFailure"]["message"]
    assert "memory" not in status["message"]
    kubectl("delete", "inferenceservices.tunesmith.dev", "more-layers", f"--namespace={namespace}")
