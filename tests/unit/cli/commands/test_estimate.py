"""`tunesmith estimate`: what a job of a file will need, from config.json, the headers of the weights and the rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from tests import hub_server
from tests.s3 import S3Server, s3, s3_server
from tests.unit.runtime.fetch.support import MODEL, TOKENIZER
from tests.unit.runtime.fetch.test_row_sample import in_parquet, some_rows
from tunesmith_api.catalogue.builtin import datasets, models
from tunesmith_cli.main import main
from tunesmith_runtime.fetch import row_count, row_sample

__all__ = ["s3", "s3_server"]

WORDS = {**MODEL, "tokenizer.json": json.dumps({**TOKENIZER, "pre_tokenizer": {"type": "WhitespaceSplit"}}).encode()}
"""MODEL with a tokenizer of words."""
PARAMETERS = 8 * 4 + 4 * 3 + 4 * 16 + 3 * 24
ROWS = b'{"prompt": "a a a a", "completion": "b"}\n' * 200
GPU = {"resources": {"accelerator": "nvidia"}, "pod": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}}}
PROGRAM = """
import json, sys
from tunesmith_cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps([*sys.modules]), file=sys.stderr)
"""
HEAVY = {"torch", "transformers", "kubernetes", "kopf", "boto3", "datasets", "httpx", "huggingface_hub", "safetensors"}
"""Packages that the extra `rows` does not have, and boto3, which only buckets need."""


def manifest(name: str, model: Any, *data: str, **spec: Any) -> dict[str, Any]:
    """A FineTuneJob."""
    model = {"uri": model} if isinstance(model, str) else model
    whole = {"model": model, "datasets": [{"uri": each} for each in data], **GPU, **spec}
    return {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": name}, "spec": whole}


def write(folder: Path, *manifests: dict[str, Any]) -> Path:
    """A file of several documents."""
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump_all(manifests))
    return path


def put(folder: Path, files: dict[str, bytes]) -> str:
    """A folder with files; its URI."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder.as_uri()


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["estimate", "-f", str(path), *arguments])


def estimates(result: Result) -> dict[str, dict[str, Any]]:
    return {each["name"]: each["estimate"] for each in json.loads(result.stdout)}


def fields(table: str) -> dict[str, str]:
    """The lines of a table by their names."""
    lines = (line.partition(":") for line in table.splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}


def test_a_job_with_local_files_is_counted_row_by_row(tmp_path: Path) -> None:
    data = put(tmp_path / "data", {"train.jsonl": ROWS})
    job = manifest("words", put(tmp_path / "m", WORDS), data, training={"globalBatchSize": 8, "epochs": 2})
    result = run(write(tmp_path, job), "-o", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = estimates(result)["words"]
    assert found["parameters"] == PARAMETERS
    assert (found["rows"], found["steps"], found["tokens"], found.get("sampled")) == (200, 50, 2 * 200 * 5, None)
    table = fields(run(write(tmp_path, job)).stdout)
    assert (table["job"], table["steps"], table["tokens"]) == ("words", "50", "2,000")
    assert table["summary"] == "needs 0.9 of 22.5 GiB on each device; about 1 s on one L4"


def test_it_imports_neither_a_framework_nor_a_client_of_a_cluster(tmp_path: Path) -> None:
    data = put(tmp_path / "data", {"train.jsonl": ROWS})
    path = write(tmp_path, manifest("words", put(tmp_path / "m", WORDS), data))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-c", PROGRAM, "estimate", "-f", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert HEAVY & set(json.loads(done.stderr)) == set()
    assert fields(done.stdout)["rows"] == "200"


def test_python_m_tunesmith_cli_estimates(tmp_path: Path) -> None:
    data = put(tmp_path / "data", {"train.jsonl": ROWS})
    path = write(tmp_path, manifest("words", put(tmp_path / "m", WORDS), data))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-m", "tunesmith_cli", "estimate", "-f", str(path), "-o", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[0]["estimate"]["rows"] == 200


def test_a_job_that_will_not_fit_exits_with_1_and_the_changes_that_make_it_fit(tmp_path: Path) -> None:
    config = {**json.loads(MODEL["config.json"]), "hidden_size": 4096, "intermediate_size": 12288, "vocab_size": 150000}
    config |= {"num_hidden_layers": 36, "num_attention_heads": 32}
    model = put(tmp_path / "m", {"config.json": json.dumps(config).encode()})
    job = manifest("big", model, "s3://my-bucket/train.jsonl", tuner="full")
    small = {"training": {"maxLength": 64, "microBatchSize": 1, "globalBatchSize": 8, "gradientCheckpointing": True}}
    result = run(write(tmp_path, job, manifest("adapter", model, "pvc://claim/rows", **small)), "--rows", "5000")
    assert result.exit_code == 1
    big, adapter = map(fields, result.stdout.split("\n\n"))
    assert big["summary"].startswith("will not fit: needs")
    assert big["to make it fit"].startswith("set spec.")
    assert "will not fit" not in adapter["summary"]
    assert adapter["rows"] == "about 5,000"
    assert (
        "adapter: the rows are not counted: pvc://claim/rows: pvc:// is not read from here; assuming 5,000 rows"
        in result.stderr
    )


def test_a_model_and_rows_of_a_bucket_are_read_with_the_variables_of_the_shell(s3: S3Server, tmp_path: Path) -> None:
    bucket, client = s3.new_bucket(), s3.client()
    for key, content in {**{f"m/{name}": each for name, each in WORDS.items()}, "train.jsonl": ROWS}.items():
        client.put_object(Bucket=bucket, Key=key, Body=content)
    job = manifest("words", f"s3://{bucket}/m", f"s3://{bucket}/train.jsonl", storage={"endpoint": s3.endpoint})
    result = run(write(tmp_path, job), "-o", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert estimates(result)["words"]["rows"] == 200


@pytest.mark.parametrize(
    ("scheme", "endpoint", "token"),
    [("hf", "HF_ENDPOINT", "HF_TOKEN"), ("ms", "MODELSCOPE_ENDPOINT", "MODELSCOPE_API_TOKEN")],
)
def test_of_a_model_on_a_hub_only_the_small_files_are_downloaded(
    scheme: str, endpoint: str, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = put(tmp_path / "data", {"train.jsonl": ROWS})
    with hub_server.hub({"org/words": hub_server.Repository(dict(WORDS), needs_token="secret")}) as hub:
        monkeypatch.setenv(endpoint, hub.url)
        monkeypatch.setenv(token, "secret")
        result = run(write(tmp_path, manifest("words", f"{scheme}://org/words", data)), "-o", "json")
        assert not any("safetensors" in each for each in hub.asked)
    assert (result.exit_code, result.stderr) == (0, "")
    assert estimates(result)["words"]["rows"] == 200
    assert estimates(result)["words"]["parameters"] == PARAMETERS


def test_a_name_of_the_catalogue_is_its_model_and_its_rows_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = models()["qwen3-8b"], datasets()["alpaca-zh"]
    assert model.huggingface is not None
    job = manifest("named", {"name": "qwen3-8b"}, datasets=[{"name": "alpaca-zh", "maxRows": 150}])
    rows = b'{"instruction": "a a a a", "input": "", "output": "b"}\n' * 200
    chat = {**WORDS, "chat_template.jinja": b"{% for m in messages %}{{ m.content }} {% endfor %}"}
    repositories = {model.huggingface: chat, f"datasets/{data.huggingface}": {"train.jsonl": rows}}
    with hub_server.hub(repositories) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        result = run(write(tmp_path, job), "-o", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert estimates(result)["named"]["rows"] == 150
    with hub_server.hub({model.huggingface: WORDS}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        result = run(write(tmp_path, job), "-o", "json")
    assert f"data set hf://{data.huggingface}: {hub.url}/api/datasets/" in result.stderr
    assert "HTTP Error 404: Not Found; assuming 150 rows of training.maxLength" in result.stderr


@pytest.mark.parametrize(
    ("scheme", "endpoint", "token"),
    [("hf", "HF_ENDPOINT", "HF_TOKEN"), ("ms", "MODELSCOPE_ENDPOINT", "MODELSCOPE_API_TOKEN")],
)
def test_rows_of_a_hub_are_counted_and_of_large_ones_a_part_is_read(
    scheme: str, endpoint: str, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = write(tmp_path, manifest("words", put(tmp_path / "m", WORDS), f"{scheme}://org/rows"))
    files = {"README.md": b"", "data/train.parquet": in_parquet(some_rows(30_000))}
    with hub_server.hub({"datasets/org/rows": hub_server.Repository(files, needs_token="secret")}) as hub:
        monkeypatch.setenv(endpoint, hub.url)
        monkeypatch.setenv(token, "secret")
        whole = estimates(run(job, "-o", "json"))["words"]
        assert (whole["rows"], whole.get("sampled")) == (30_000, None)
        hub.sent.clear()
        monkeypatch.setattr(row_count, "WHOLE_BYTES", 1000)
        monkeypatch.setattr(row_sample, "SAMPLE_BYTES", 20_000)
        part = estimates(run(job, "-o", "json"))["words"]
        assert hub.sent["data/train.parquet"] < len(files["data/train.parquet"]) / 2
        cdn = [headers for path, headers in hub.headers if path.startswith("/cdn/")]
        assert cdn
        assert not any("secret" in text for headers in cdn for text in headers.values())
    assert (part["rows"], part["sampled"]) == (30_000, True)
    assert part["tokens"] == pytest.approx(whole["tokens"], rel=0.15)


def test_a_model_that_only_the_cluster_has_is_named_and_the_next_job_is_estimated(tmp_path: Path) -> None:
    model, data = put(tmp_path / "m", WORDS), put(tmp_path / "data", {"train.jsonl": ROWS})
    first = manifest("first", {"fineTuneJob": {"name": "other"}}, data)
    path = write(tmp_path, first, {"kind": "ConfigMap"}, manifest("second", model, data))
    result = run(path, "-o", "json")
    assert result.exit_code == 1
    assert [*estimates(result)] == ["second"]
    assert result.stderr == (
        "first: no estimate: spec.model is a resource, so only the cluster knows the model: "
        "give a folder with config.json by --model\n"
    )
    assert [*estimates(run(path, "-o", "json", "--model", str(tmp_path / "m")))] == ["first", "second"]


def test_a_model_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_server.hub({}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        result = run(write(tmp_path, manifest("job", "hf://org/none", "s3://my-bucket/rows")))
    assert result.exit_code == 1
    assert (
        f"job: no estimate: model hf://org/none: {hub.url}/org/none/resolve/main/config.json: HTTP Error 404"
        in result.stderr
    )
    empty = put(tmp_path / "empty", {})
    result = run(write(tmp_path, manifest("job", empty, "s3://my-bucket/rows")))
    assert result.exit_code == 1
    assert "config.json" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("kind: EvalJob\n", "no FineTuneJob in the file"),
        ("a: [\n", "line 2"),
        (None, "No such file"),
    ],
)
def test_a_file_without_a_job_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    if content is not None:
        path.write_text(content)
    result = run(path)
    assert result.exit_code == 1
    assert str(path) in result.stderr
    assert message in result.stderr


def test_names_that_are_not_built_in_are_named_with_the_nearest_ones(tmp_path: Path) -> None:
    job = manifest("job", {"name": "qwen38b"}, datasets=[{"name": "alpaca-zhh"}])
    result = run(write(tmp_path, job), "--model", put(tmp_path / "m", WORDS).removeprefix("file://"))
    assert result.exit_code == 0
    sentence = "is not in the built-in catalogue, so only the cluster can look it up"
    own = "unless it is in a catalogue of your own, write"
    assert f"job: spec.model.name qwen38b {sentence}: {own} qwen3-8b, " in result.stderr
    assert f"job: spec.datasets[0].name alpaca-zhh {sentence}: {own} alpaca-zh, " in result.stderr


@pytest.mark.parametrize(
    ("endpoint", "fault", "message"),
    [
        (
            None,
            hub_server.Fault("config.json", status=401),
            "HTTP Error 401: Unauthorized: set HF_TOKEN to a token that",
        ),
        (None, hub_server.Fault("config.json", cut_after=3), "the connection ended after 3 of "),
        (None, hub_server.Fault("tokenizer.json", status=500), "/tokenizer.json: HTTP Error 500: "),
        (
            "localhost",
            None,
            "unknown url type: 'localhost/org/words/resolve/main/config.json': set HF_ENDPOINT to a URL",
        ),
        ("http://127.0.0.1:9", None, "[Errno 111] Connection refused; give a folder"),
    ],
)
def test_a_hub_that_does_not_answer_is_reported_with_the_cause(
    endpoint: str | None, fault: hub_server.Fault | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_server.hub({"org/words": WORDS}) as hub:
        hub.faults += [fault] if fault else []
        monkeypatch.setenv("HF_ENDPOINT", endpoint or hub.url)
        result = run(write(tmp_path, manifest("job", "hf://org/words", "s3://my-bucket/rows")))
    assert result.exit_code == 1
    assert message in result.stderr
    assert "urlopen" not in result.stderr
