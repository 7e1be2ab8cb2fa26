"""The verb fetch: the files of each kind of resource, adoption of finished runs, and refused input."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.s3 import S3Server
from tests.unit.runtime.fetch.support import ADAPTER, CONFIG, MODEL, ROWS, WEIGHTS, Fetcher, lines, names
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import ModelRole
from tunesmith_api.status import ArtifactType
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch import models
from tunesmith_runtime.fetch.data import Data, download_benchmark
from tunesmith_runtime.fetch.hub import redirection
from tunesmith_runtime.fetch.imports import key_of
from tunesmith_runtime.rundirectory import open_run, record_of
from tunesmith_runtime.storage import Entry, Storage
from tunesmith_runtime.storage.directory import download_directory, publish_directory
from tunesmith_runtime.storage.manifest import Manifest
from tunesmith_runtime.workdir import Work


def finish(fetcher: Fetcher, spec: Any, work: Any) -> None:
    """End the run as export does."""
    run = open_run(spec, work, fetcher.storage)
    run.finish(record_of(spec, work.fetched(), artifacts=[run.publish(ArtifactType.MERGED, work.model())]))


def refusal(fetcher: Fetcher, spec: Any) -> RunFailure:
    with pytest.raises(RunFailure) as failure:
        fetcher.fetch(spec)
    return failure.value


def test_a_tuning_finds_model_rows_and_its_run(fetcher: Fetcher) -> None:
    model, data = (
        fetcher.put("base", MODEL),
        fetcher.put("data", {"a.jsonl": ROWS, "b.jsonl": ROWS * 2, "readme.md": b"x"}),
    )
    report, work = fetcher.fetch(fetcher.job(model, f"{data}/a.jsonl", data, validation={"uri": f"{data}/b.jsonl"}))
    fetched = work.fetched()
    assert (report.outcome, report.run_uri, report.model_uri) == ("Succeeded", fetched.run_uri, model)
    assert report.model_digest == fetched.model_digest
    assert names(work.model()) == {*MODEL, "manifest.json"}
    assert (work.model() / "model.safetensors").read_bytes() == WEIGHTS
    files = [
        (file.dataset, file.uri.removeprefix(data), len(lines(work.data / file.path))) for file in work.data_files()
    ]
    assert files == [(0, "/a.jsonl", 1), (1, "/a.jsonl", 1), (1, "/b.jsonl", 2), (None, "/b.jsonl", 2)]
    assert str(fetched.run_uri).startswith(f"{fetcher.store.uri}/runs/")


def test_the_text_of_a_given_chat_template_identifies_the_run(local: Fetcher, tmp_path: Path) -> None:
    model, data = local.put("base", MODEL), local.put("data", {"a.jsonl": ROWS})
    source = {"configMap": {"name": "templates", "key": "brief.jinja"}}
    spec = local.job(model, f"{data}/a.jsonl", training={"chatTemplate": source})
    file = tmp_path / "chat_template.jinja"
    spec = spec.model_copy(update={"chat_template_file": str(file)})
    runs = []
    for mark, text in (("", "{{ messages }}"), ("", "{{ messages[0] }}"), ("\ufeff", "{{ messages }}")):
        file.write_text(mark + text)
        report, work = local.fetch(spec)
        runs.append(report.run_uri)
        assert work.fetched().fingerprints["chatTemplate"] == sha256(text.encode()).hexdigest()
    assert (runs[0] == runs[2], runs[0] == runs[1]) == (True, False)
    for content, problem in ((b" \n", "is empty"), (b"\xff", "is not text in UTF-8")):
        file.write_bytes(content)
        failure = refusal(local, spec)
        assert failure.failure is FailureClass.BAD_SPEC
        assert f"training.chatTemplate: key brief.jinja of ConfigMap templates {problem}" in failure.message


def test_a_finished_run_is_adopted_and_nothing_downloaded(fetcher: Fetcher) -> None:
    spec = fetcher.job(fetcher.put("base", MODEL), fetcher.put("data", {"a.jsonl": ROWS}))
    _, work = fetcher.fetch(spec)
    finish(fetcher, spec, work)
    report, again = fetcher.fetch(spec.model_copy(update={"name": "other", "uid": "other"}))
    assert report.outcome == "Adopted"
    assert report.artifacts is not None
    assert report.artifacts[0].name == "merged"
    assert names(again.root) == {"fetch.json"}
    assert again.fetched().record is not None


def test_a_finished_run_is_found_before_a_device_is_requested(fetcher: Fetcher) -> None:
    spec = fetcher.job(fetcher.put("base", MODEL), fetcher.put("data", {"a.jsonl": ROWS}))
    _, work = fetcher.fetch(spec)
    finish(fetcher, spec, work)
    report, pod = fetcher.prepare(spec)
    assert (report.verb, report.outcome, report.run_uri) == ("prepare", "Adopted", work.fetched().run_uri)
    assert (report.model_uri, report.model_digest) == (work.fetched().model_uri, work.fetched().model_digest)
    assert [artifact.name for artifact in report.artifacts or ()] == ["merged"]
    assert not pod.root.exists()


def fetched_weights(pod: Work) -> list[Path]:
    """The files of weights in the work directory of a pod."""
    return list(pod.root.rglob("*.safetensors"))


def test_an_unfinished_run_is_identified_without_a_download_of_weights(fetcher: Fetcher) -> None:
    spec = fetcher.job(fetcher.put("base", MODEL), fetcher.put("data", {"a.jsonl": ROWS}))
    report, pod = fetcher.prepare(spec)
    fetched, fetched_pod = fetcher.fetch(spec)
    assert (report.outcome, report.run_uri, report.model_uri) == ("Succeeded", fetched.run_uri, fetched.model_uri)
    assert [path.name for path in fetched_weights(fetched_pod)] == ["model.safetensors"]
    assert fetched_weights(pod) == []


def test_missing_data_are_reported_before_a_device_is_requested(fetcher: Fetcher) -> None:
    with pytest.raises(RunFailure) as failure:
        fetcher.prepare(fetcher.job(fetcher.put("base", MODEL), f"{fetcher.store.uri}/nowhere.jsonl"))
    assert failure.value.failure is FailureClass.DATASET_NOT_FOUND


def test_a_changed_data_file_is_a_new_run(fetcher: Fetcher) -> None:
    spec = fetcher.job(fetcher.put("base", MODEL), fetcher.put("data", {"a.jsonl": ROWS}))
    _, work = fetcher.fetch(spec)
    finish(fetcher, spec, work)
    fetcher.put("data", {"a.jsonl": ROWS * 2})
    report, again = fetcher.fetch(spec)
    assert report.outcome == "Succeeded"
    assert again.fetched().run_id != work.fetched().run_id


def test_questions_that_must_not_be_trained_on_are_fetched_and_identify_the_run(fetcher: Fetcher) -> None:
    model, data = fetcher.put("base", MODEL), fetcher.put("data", {"a.jsonl": ROWS})
    runs = [fetcher.fetch(fetcher.job(model, data))[0].run_uri]
    for question in (b"one", b"two"):
        tests = fetcher.put("tests", {"qa.jsonl": b'{"question": "%s"}\n' % question})
        report, work = fetcher.fetch(fetcher.job(model, data, decontaminate=[{"uri": tests}]))
        runs.append(report.run_uri)
        assert [(file.dataset, file.evaluation) for file in work.data_files()] == [(0, None), (None, 0)]
    assert len(set(runs)) == 3


def test_a_changed_model_is_a_new_run(fetcher: Fetcher) -> None:
    spec = fetcher.job(fetcher.put("base", MODEL), fetcher.put("data", {"a.jsonl": ROWS}))
    _, work = fetcher.fetch(spec)
    finish(fetcher, spec, work)
    fetcher.put("base", {"config.json": json.dumps(CONFIG | {"rope_theta": 500.0}).encode()})
    assert fetcher.fetch(spec)[0].outcome == "Succeeded"


@pytest.mark.parametrize("path", ["config.json", "added.json"])
def test_a_folder_that_changes_while_it_is_fetched_is_not_trained_under_the_run_of_its_former_content(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    spec = fetcher.job(fetcher.put("base", MODEL), fetcher.put("data", {"a.jsonl": ROWS}))

    def upload_and_download(storage: Storage, uri: str, *others: Any, **more: Any) -> Manifest:
        fetcher.put("base", {path: json.dumps(CONFIG | {"rope_theta": 500.0}).encode()})
        return download_directory(storage, uri, *others, **more)

    with monkeypatch.context() as patch:
        patch.setattr(models, "download_directory", upload_and_download)
        failure = refusal(fetcher, spec)
    assert failure.failure is FailureClass.STORAGE_CORRUPT
    assert failure.message == f"{fetcher.store.uri}/base changed while it was fetched: {path}"
    assert fetcher.fetch(spec)[0].outcome == "Succeeded"


def test_an_unfinished_run_continues_in_the_same_folder(fetcher: Fetcher) -> None:
    spec = fetcher.job(fetcher.put("base", MODEL), fetcher.put("data", {"a.jsonl": ROWS}))
    first, second = (fetcher.fetch(spec.model_copy(update={"attempt": attempt}))[0] for attempt in (1, 2))
    assert first == second


def test_an_evaluation_of_an_adapter_finds_base_adapter_and_benchmark_data(fetcher: Fetcher) -> None:
    base, adapter = fetcher.put("base", MODEL), fetcher.put("adapter", ADAPTER)
    data = fetcher.put("bench", {"test.jsonl": ROWS, "gsm8k/README.md": b"r", "gsm8k/main/test.jsonl": ROWS})
    benchmarks = [
        {"name": "own", "dataset": {"uri": f"{data}/test.jsonl"}},
        {"name": "gsm8k", "dataset": {"uri": f"{data}/gsm8k", "type": "benchmark"}},
        {"name": "mmlu"},
    ]
    report, work = fetcher.fetch(
        fetcher.spec("EvalJob", {"uri": adapter, "base": {"uri": base}}, {"benchmarks": benchmarks})
    )
    assert names(work.benchmarks) == {"own/test.jsonl", "gsm8k/README.md", "gsm8k/main/test.jsonl"}
    assert (names(work.model()), names(work.model(ModelRole.ADAPTER))) == (
        {*MODEL, "manifest.json"},
        {*ADAPTER, "manifest.json"},
    )
    assert report.model_uri == adapter


@pytest.mark.parametrize("key", ["../../outside", "a/../../outside", "/outside"])
def test_benchmark_data_whose_key_leads_out_of_its_folder_are_refused(local: Fetcher, tmp_path: Path, key: str) -> None:
    """A key of an object store is any text."""
    uri = local.put("bench", {"test.jsonl": ROWS})
    whole = Entry("test.jsonl", len(ROWS), "1")
    data = Data(uri, {f"{uri}/test.jsonl": whole, f"{uri}/x": replace(whole, path=key)}, "f")
    with pytest.raises(RunFailure, match="leads out of its folder") as failure:
        download_benchmark(local.storage, data, Work(tmp_path / "a"), "c")
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert not (tmp_path / "a").exists()


def test_a_score_is_adopted_by_another_evaluation_of_the_same_model(fetcher: Fetcher) -> None:
    data = fetcher.put("bench", {"test.jsonl": ROWS})
    benchmarks = [{"name": "own", "dataset": {"uri": f"{data}/test.jsonl"}}]
    model = fetcher.put("base", MODEL)
    first = fetcher.spec("EvalJob", model, {"benchmarks": benchmarks}, role="model")
    _, work = fetcher.fetch(first)
    finish(fetcher, first, work)
    gates = [{"benchmark": "own", "min": 0.5}]
    second = fetcher.spec(
        "EvalJob", model, {"benchmarks": benchmarks, "baseline": {"uri": model}, "gates": gates}, role="baseline"
    )
    assert fetcher.fetch(second)[0].outcome == "Adopted"


def test_a_service_finds_its_model_and_adapters(fetcher: Fetcher) -> None:
    model, adapter = fetcher.put("base", MODEL), fetcher.put("adapter", ADAPTER)
    adapters = [{"name": "fr", "model": {"uri": adapter, "base": {"uri": model}}}]
    report, work = fetcher.fetch(fetcher.spec("InferenceService", model, {}, adapters=adapters))
    assert names(work.adapters) == {f"fr/{name}" for name in (*ADAPTER, "manifest.json")}
    assert (report.outcome, report.run_uri, report.model_uri) == ("Succeeded", None, model)
    assert report.model_digest is not None


def test_a_published_model_is_known_by_its_digest(local: Fetcher, tmp_path: Path) -> None:
    for name, content in MODEL.items():
        (tmp_path / "made").mkdir(exist_ok=True)
        (tmp_path / "made" / name).write_bytes(content)
    made = publish_directory(local.storage, tmp_path / "made", local.store.uri, "merged")
    report, _ = local.fetch(local.spec("InferenceService", {"uri": made.uri, "digest": made.digest}, {}))
    assert report.model_digest == made.digest
    failure = refusal(local, local.spec("InferenceService", {"uri": made.uri, "digest": "0" * 64}, {}))
    assert failure.failure is FailureClass.STORAGE_CORRUPT
    assert "has changed since it was published" in failure.message


@pytest.mark.parametrize("published", [True, False])
def test_an_import_whose_content_does_not_match_its_digest_is_refused(
    local: Fetcher, tmp_path: Path, published: bool
) -> None:
    """Gates compare digests: no other content may be served under the digest that has passed."""
    uri = local.put("elsewhere", MODEL)
    if published:
        download_directory(local.storage, uri, tmp_path / "made")
        uri = publish_directory(local.storage, tmp_path / "made", local.store.uri, "model").uri
    pointer = json.dumps({"uri": uri, "digest": "0" * 64, "source": "hf://a/b"})
    local.put(
        f"models/{key_of('hf://a/b', '', server=redirection('hf://a/b', None))}", {"model.json": pointer.encode()}
    )
    failure = refusal(local, local.spec("InferenceService", "hf://a/b", {}))
    assert failure.failure is FailureClass.STORAGE_CORRUPT
    assert f"{uri} has changed since it was published" in failure.message


@pytest.mark.parametrize(
    ("files", "failure", "sentence"),
    [
        ({}, FailureClass.MODEL_NOT_FOUND, "the folder is empty"),
        ({"readme.md": b"x"}, FailureClass.MODEL_NOT_FOUND, "no safetensors weights: it has readme.md"),
        (
            {"config.json": b"{}", "pytorch_model.bin": b"x"},
            FailureClass.UNSAFE_WEIGHTS,
            "pickle files.*pytorch_model.bin",
        ),
        ({"config.json": b"{}", "model.pt": b"x"}, FailureClass.UNSAFE_WEIGHTS, "model.pt"),
        ({"model.safetensors": WEIGHTS}, FailureClass.MODEL_NOT_FOUND, "no config.json: it has model.safetensors"),
        ({"a.gguf": b"x", "b.gguf": b"x"}, FailureClass.MODEL_NOT_FOUND, "2 GGUF files: a.gguf, b.gguf"),
        (ADAPTER, FailureClass.MODEL_NOT_FOUND, "the folder holds an adapter"),
        ({**MODEL, "model.safetensors": WEIGHTS[:-4]}, FailureClass.BAD_MODEL, "cut short or damaged"),
        (
            {**MODEL, "model.safetensors": b"<html>not found</html>"},
            FailureClass.BAD_MODEL,
            "an HTML page, not a whole safetensors file",
        ),
        (
            {**MODEL, "model.safetensors.index.json": b'{"weight_map": {"w": "model-2-of-2.safetensors"}}'},
            FailureClass.MODEL_NOT_FOUND,
            "model-2-of-2.safetensors is missing",
        ),
    ],
)
def test_a_folder_that_holds_no_model_is_refused_with_what_it_holds(
    local: Fetcher, files: dict[str, bytes], failure: FailureClass, sentence: str
) -> None:
    model, data = local.put("base", files), local.put("data", {"a.jsonl": ROWS})
    before = local.objects()
    refused = refusal(local, local.job(model, data))
    assert refused.failure is failure
    assert model in refused.message
    assert re.search(sentence, refused.message)
    assert local.objects() == before


def test_pickles_beside_safetensors_are_not_downloaded(local: Fetcher) -> None:
    model = local.put("base", {**MODEL, "pytorch_model.bin": b"pickle", "training_args.bin": b"pickle"})
    _, work = local.fetch(local.job(model, local.put("data", {"a.jsonl": ROWS})))
    assert names(work.model()) == {*MODEL, "manifest.json"}


CODE = {"modeling_own.py": b"import os", "kernels/own.so": b"elf"}


@pytest.mark.parametrize("published", [False, True], ids=["as uploaded", "with a manifest"])
def test_code_in_a_folder_is_downloaded_only_if_it_is_trusted(local: Fetcher, tmp_path: Path, published: bool) -> None:
    uri = local.put("base", MODEL | CODE)
    if published:
        download_directory(local.storage, uri, tmp_path / "copy")
        uri = publish_directory(local.storage, tmp_path / "copy", local.store.uri, "own").uri
    data = local.put("data", {"a.jsonl": ROWS})
    for trusted, brought in ((False, {*MODEL}), (True, {*MODEL, *CODE})):
        _, work = local.fetch(local.job({"uri": uri, "trustRemoteCode": trusted}, data))
        assert names(work.model()) == {*brought, "manifest.json"}


@pytest.mark.parametrize(
    ("files", "name", "failure", "sentence"),
    [
        ({"a.jsonl": ROWS}, "/absent.jsonl", FailureClass.DATASET_NOT_FOUND, "absent.jsonl: no object and no folder"),
        ({"a.md": b"x"}, "", FailureClass.DATASET_NOT_FOUND, "no file of rows in the folder; it has a.md"),
        ({"a.jsonl": b""}, "/a.jsonl", FailureClass.EMPTY_DATASET, "all empty"),
    ],
)
def test_missing_data_are_refused_before_the_model_is_fetched(
    fetcher: Fetcher, files: dict[str, bytes], name: str, failure: FailureClass, sentence: str
) -> None:
    model, data = fetcher.put("base", MODEL), fetcher.put("data", files)
    refused = refusal(fetcher, fetcher.job(model, data + name))
    assert refused.failure is failure
    assert sentence in refused.message
    assert data in refused.message
    assert not (fetcher.folder / "pod-1" / "model").exists()


@pytest.mark.parametrize("uri", ["s3://no-such-bucket/base", "s3://no-such-bucket/base/model.gguf"])
def test_a_missing_bucket_of_the_model_is_a_model_not_found(s3: S3Server, tmp_path: Path, uri: str) -> None:
    fetcher = Fetcher(s3.store(s3.new_bucket()), tmp_path)
    refused = refusal(fetcher, fetcher.job(uri, fetcher.put("data", {"a.jsonl": ROWS})))
    assert refused.failure is FailureClass.MODEL_NOT_FOUND
    assert "no bucket 'no-such-bucket'" in refused.message


def test_wrong_credentials_are_not_taken_for_a_missing_model(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = s3.store(s3.new_bucket())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "wrong")
            fetcher = Fetcher(store, tmp_path)
            for uri in (f"{store.uri}/base", f"{store.uri}/base.gguf"):
                assert refusal(fetcher, fetcher.job(uri, f"{store.uri}/a.jsonl")).failure is FailureClass.STORAGE_403


def test_a_missing_output_is_refused_before_anything_is_fetched(s3: S3Server, tmp_path: Path) -> None:
    fetcher = Fetcher(s3.store(s3.new_bucket()), tmp_path)
    spec = fetcher.job(fetcher.put("base", MODEL), fetcher.put("data", {"a.jsonl": ROWS}))
    refused = refusal(fetcher, spec.model_copy(update={"output_uri": "s3://no-such-bucket/out"}))
    assert refused.failure is FailureClass.BAD_SPEC
    assert "no bucket 'no-such-bucket'" in refused.message
    assert not (fetcher.folder / "pod-1").exists()
