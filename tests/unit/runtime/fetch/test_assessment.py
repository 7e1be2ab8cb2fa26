"""The assessment of a job before it trains: the estimate of its model and rows, and the refusal of a job that will not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import load, save

from tests import tinyspeech, tinyvision
from tests.hub_server import Hub, hub
from tests.unit.runtime.fetch.hub_imports import SCHEMES, servers
from tests.unit.runtime.fetch.support import ADAPTER, CONFIG, MODEL, PARAMETERS, ROWS, TOKENIZER, Fetcher, names
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import TERMINATION_MESSAGE_BYTES, ModelRole, Outcome, ResolvedModel, RunReport, RunSpec
from tunesmith_api.training import Until
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch import row_count, row_sample
from tunesmith_runtime.report import encode
from tunesmith_runtime.storage import join

GPU: dict[str, Any] = {"resources": {"accelerator": "nvidia"}}
WORDS = {**MODEL, "tokenizer.json": json.dumps({**TOKENIZER, "pre_tokenizer": {"type": "WhitespaceSplit"}}).encode()}
"""MODEL with a tokenizer of words."""
SCORER = {
    **WORDS,
    "config.json": json.dumps(
        CONFIG | {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "score"}, "pad_token_id": 1}
    ).encode(),
    "model.safetensors": save({**load(MODEL["model.safetensors"]), "score.weight": numpy.ones((1, 4), numpy.float32)}),
}
"""A reward model of the same sizes."""
PROMPTS = b'{"prompt": "a a a a"}\n' * 8
PREFERENCES = b'{"prompt": "a a", "chosen": "a", "rejected": "a a"}\n' * 8
MANY = b'{"prompt": "a a a a", "completion": "b"}\n' * 200


def prepared(fetcher: Fetcher, rows: bytes, **spec: Any) -> RunReport:
    job = fetcher.job(fetcher.put("m", WORDS), fetcher.put("data", {"train.jsonl": rows}), **{**GPU, **spec})
    return fetcher.prepare(job)[0]


def test_a_job_with_devices_is_estimated_before_it_gets_them(fetcher: Fetcher) -> None:
    report = prepared(fetcher, MANY, training={"globalBatchSize": 8, "epochs": 2})
    found = report.estimate
    assert report.outcome is Outcome.SUCCEEDED
    assert found is not None
    assert found.parameters == PARAMETERS  # a row has 4 tokens and EOS
    assert (found.rows, found.steps, found.tokens, found.sampled) == (200, 50, 2 * 200 * 5, None)
    assert found.summary is not None
    assert found.summary.startswith("needs 0.9 GiB on each device; about 1 s on one L4")
    assert report.rows is not None
    assert report.rows.kept == 200


def test_no_weight_is_downloaded_for_it_and_nothing_stays(fetcher: Fetcher) -> None:
    job = fetcher.job(fetcher.put("m", WORDS), fetcher.put("data", {"train.jsonl": MANY}), **GPU)
    _, work = fetcher.prepare(job)
    assert names(work.root) == set()


def test_a_job_without_devices_is_estimated_by_fetch(fetcher: Fetcher) -> None:
    job = fetcher.job(fetcher.put("m", WORDS), fetcher.put("data", {"train.jsonl": MANY}), resources={"memory": "2Gi"})
    report, _ = fetcher.fetch(job)
    assert report.estimate is not None
    assert report.estimate.summary is not None
    assert report.estimate.summary.endswith(" of 2 GiB; 13 steps")
    assert len(encode(report)) < TERMINATION_MESSAGE_BYTES


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"lora": {"targetPattern": "nothing"}}, "matches the whole name of no linear layer"),
        ({"lora": {"trainableTokens": ["no such token"]}}, "tokens of the model"),
        ({"tuner": "full", "training": {"freeze": ["layers:7"]}}, "is no range of the model's layers"),
    ],
)
def test_parts_that_the_model_does_not_have_are_refused_before_there_are_devices(
    tiny: Path, fetcher: Fetcher, spec: dict[str, Any], why: str
) -> None:
    model = fetcher.put("tiny", {path.name: path.read_bytes() for path in tiny.iterdir() if path.is_file()})
    job = fetcher.job(model, fetcher.put("data", {"train.jsonl": MANY}), **GPU, **spec)
    with pytest.raises(RunFailure, match=why) as failure:
        fetcher.prepare(job)
    assert failure.value.failure is FailureClass.BAD_SPEC


def with_teacher(fetcher: Fetcher, files: dict[str, bytes], share: float = 0.5, name: str = "teacher") -> RunSpec:
    gkd = {"teacher": {"uri": fetcher.put(name, files)}, "lambda": share, "maxCompletionLength": 100}
    data = fetcher.put("data", {"train.jsonl": MANY})
    job = fetcher.job(fetcher.put("m", WORDS), data, **GPU, method="gkd", gkd=gkd)
    teacher = ResolvedModel(uri=gkd["teacher"]["uri"])
    return job.model_copy(update={"models": {**job.models, ModelRole.TEACHER: teacher}})


def test_a_teacher_is_estimated_with_its_sampled_answers(fetcher: Fetcher) -> None:
    plain = prepared(fetcher, MANY).estimate
    estimates = [fetcher.prepare(with_teacher(fetcher, WORDS, share))[0].estimate for share in (0.0, 0.5)]
    assert plain is not None
    for found in estimates:
        assert found is not None
        assert found.download_bytes == (plain.download_bytes or 0) + 4 * PARAMETERS
        assert found.memory is not None
        assert plain.memory is not None
        assert found.memory.weights == (plain.memory.weights or 0) + 2 * PARAMETERS  # in bfloat16
    assert [found.tokens for found in estimates if found] == [200 * 5, 200 * (5 + 4 + 100) // 2]


def test_the_content_of_a_teacher_identifies_the_run(fetcher: Fetcher) -> None:
    config = json.dumps(CONFIG | {"rms_norm_eps": 1e-5}).encode()
    first, again = (fetcher.prepare(with_teacher(fetcher, WORDS))[0].run_uri for _ in range(2))
    other = fetcher.prepare(with_teacher(fetcher, {**WORDS, "config.json": config}))[0].run_uri
    assert first == again != other


def test_a_teacher_with_other_tokens_is_refused_before_a_device_is_requested(fetcher: Fetcher) -> None:
    vocabulary = {"</s>": 0, "b": 1, "a": 2}
    model = {**TOKENIZER["model"], "vocab": vocabulary}  # type: ignore[dict-item]
    tokenizer = json.dumps({**TOKENIZER, "model": model}).encode()
    with pytest.raises(RunFailure, match="'a' is token 2 of the teacher and token 1 of the student") as failure:
        fetcher.prepare(with_teacher(fetcher, {**WORDS, "tokenizer.json": tokenizer}))
    assert failure.value.failure is FailureClass.BAD_SPEC


def test_a_teacher_is_downloaded_and_checked_beside_the_model(fetcher: Fetcher) -> None:
    _, work = fetcher.fetch(with_teacher(fetcher, WORDS))
    assert (work.model(ModelRole.TEACHER) / "model.safetensors").read_bytes() == WORDS["model.safetensors"]
    with pytest.raises(RunFailure) as failure:
        fetcher.fetch(
            with_teacher(fetcher, {**WORDS, "model.safetensors": ADAPTER["adapter_model.safetensors"]}, name="bad")
        )
    assert failure.value.failure is FailureClass.BAD_MODEL


def with_reward_model(
    fetcher: Fetcher, files: dict[str, bytes], rows: bytes = PROMPTS, name: str = "scores"
) -> RunSpec:
    uri = fetcher.put(name, files)
    rewards = [{"name": "taste", "type": "model", "model": {"uri": uri}}]
    grpo = {"maxCompletionLength": 3}
    data = fetcher.put("data", {"train.jsonl": rows})
    job = fetcher.job(fetcher.put("m", WORDS), data, **GPU, method="grpo", grpo=grpo, rewards=rewards)
    return job.model_copy(update={"models": {**job.models, ModelRole.REWARD: ResolvedModel(uri=uri)}})


def test_a_reward_model_is_estimated_downloaded_and_checked_beside_the_model(fetcher: Fetcher) -> None:
    job = with_reward_model(fetcher, SCORER)
    alone = fetcher.prepare(job.model_copy(update={"models": {ModelRole.BASE: job.base}}))[0].estimate
    report, _ = fetcher.prepare(job)
    assert alone is not None
    assert alone.memory is not None
    assert report.estimate is not None
    assert report.estimate.memory is not None
    assert report.estimate.memory.weights == (alone.memory.weights or 0) + 2 * (PARAMETERS + 4)  # in bfloat16
    _, work = fetcher.fetch(job)
    assert (work.model(ModelRole.REWARD) / "model.safetensors").read_bytes() == SCORER["model.safetensors"]
    other = fetcher.prepare(with_reward_model(fetcher, {**SCORER, "note.txt": b"", "generation_config.json": b"{}"}))[0]
    assert other.run_uri != report.run_uri


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "the model is a LlamaForCausalLM, which scores no answers"),
        ({"id2label": {"0": "bad", "1": "good"}}, "with 2 labels, and a reward is a single score"),
    ],
)
def test_a_model_that_gives_no_single_score_is_no_reward_model(
    fetcher: Fetcher, change: dict[str, Any], message: str
) -> None:
    config = json.dumps(json.loads(SCORER["config.json"]) | change).encode()
    with pytest.raises(RunFailure, match=message) as failure:
        fetcher.prepare(with_reward_model(fetcher, {**SCORER, "config.json": config}))
    assert failure.value.failure is FailureClass.BAD_MODEL


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "its tokenizer has no chat template, and the prompts are messages"),
        ("{{ raise_exception('who are you') }}", "is refused by the chat template of the reward model.*who are you"),
    ],
)
def test_prompts_that_the_reward_model_cannot_read_are_refused_before_a_device_is_requested(
    fetcher: Fetcher, template: str | None, message: str
) -> None:
    row = {"prompt": [{"role": "user", "content": "a"}]}
    files = SCORER if template is None else {**SCORER, "chat_template.jinja": template.encode()}
    chat = {**WORDS, "chat_template.jinja": b"{% for m in messages %}{{ m.content }}{% endfor %}"}
    job = with_reward_model(fetcher, files, json.dumps(row).encode())
    job = job.model_copy(
        update={"models": {**job.models, ModelRole.BASE: ResolvedModel(uri=fetcher.put("chat", chat))}}
    )
    with pytest.raises(RunFailure, match=message):
        fetcher.prepare(job)


def test_of_large_data_a_sample_is_read_and_the_rest_follows_from_its_bytes(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_count, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(row_sample, "SAMPLE_BYTES", 1000)
    report = prepared(fetcher, MANY, training={"globalBatchSize": 8})
    found = report.estimate
    assert found is not None
    assert (found.rows, found.steps, found.sampled) == (200, 25, True)
    assert report.rows is None
    assert prepared(fetcher, MANY + b"broken\n").estimate is not None


@pytest.mark.parametrize("until", [Until.ESTIMATE, Until.DATA])
def test_a_job_that_ends_before_training_is_never_adopted(fetcher: Fetcher, until: Until) -> None:
    model, data = fetcher.put("m", WORDS), fetcher.put("data", {"train.jsonl": MANY})
    first, _ = fetcher.prepare(fetcher.job(model, data, **GPU))
    record = {
        "kind": "FineTuneJob", "name": "demo", "namespace": "default", "uid": "u", "spec": {}, "specHash": "", "runId": "r",
        "fingerprints": {}, "versions": {}, "finishedAt": "2026-11-29T00:00:00Z",
    }  # fmt: skip
    assert first.run_uri is not None
    fetcher.storage.write_bytes(join(first.run_uri, "run.json"), json.dumps(record).encode())
    assert fetcher.prepare(fetcher.job(model, data, **GPU))[0].outcome is Outcome.ADOPTED
    report, _ = fetcher.prepare(fetcher.job(model, data, **GPU, until=until))
    assert report.outcome is Outcome.SUCCEEDED
    assert report.estimate is not None


def test_until_data_counts_all_rows_as_the_training_does(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_count, "WHOLE_BYTES", 10)
    long = json.dumps({"prompt": "a " * 100, "completion": "b"}).encode() + b"\n"
    report = prepared(fetcher, MANY + long, until="data", training={"maxLength": 32})
    assert report.rows is not None
    assert report.rows.to_dict() == {"kept": 200, "dropped": [{"reason": "TooLong", "count": 1}]}
    with pytest.raises(RunFailure, match=r"train\.jsonl line 201: ") as failure:
        prepared(fetcher, MANY + b"broken\n", until="data")
    assert failure.value.failure is FailureClass.BAD_ROW


def test_a_bad_row_is_refused_before_a_device_is_requested(fetcher: Fetcher) -> None:
    with pytest.raises(RunFailure, match=r"train\.jsonl line 2: ") as failure:
        prepared(fetcher, ROWS + b"{}\n")
    assert failure.value.failure is FailureClass.BAD_ROW


def test_fit_refuse_stops_a_job_that_will_not_fit_and_its_hint_works(fetcher: Fetcher) -> None:
    small = {"resources": {"accelerator": "nvidia", "deviceMemory": "512Mi"}}
    assert prepared(fetcher, MANY, **small).estimate is not None
    with pytest.raises(RunFailure, match=r"needs 0\.9 GiB on each device, which has 0\.5 GiB: runtime 0\.9") as failure:
        prepared(fetcher, MANY, **small, fit="Refuse")
    assert failure.value.failure is FailureClass.WILL_NOT_FIT
    assert failure.value.hint is not None
    assert failure.value.hint.endswith("spec.resources.deviceMemory: 1Gi")
    prepared(fetcher, MANY, resources={"accelerator": "nvidia", "deviceMemory": "1Gi"}, fit="Refuse")


def test_a_job_on_a_cpu_is_refused_by_fetch_before_the_download(fetcher: Fetcher) -> None:
    job = fetcher.job(
        fetcher.put("m", WORDS), fetcher.put("data", {"train.jsonl": MANY}), resources={"memory": "512Mi"}, fit="Refuse"
    )
    with pytest.raises(RunFailure, match=r"resources\.memory is 0\.5 GiB") as failure:
        fetcher.fetch(job)
    assert failure.value.failure is FailureClass.WILL_NOT_FIT
    assert failure.value.hint == "set spec.resources.memory: 1Gi"


def test_an_architecture_without_known_sizes_has_no_estimate_and_trains(fetcher: Fetcher) -> None:
    config = {name: value for name, value in CONFIG.items() if name != "num_hidden_layers"}
    files = {**WORDS, "config.json": json.dumps(config).encode()}
    job = fetcher.job(fetcher.put("m", files), fetcher.put("data", {"train.jsonl": MANY}), **GPU)
    report, _ = fetcher.prepare(job)
    assert report.outcome is Outcome.SUCCEEDED
    assert report.estimate is None


def asked(*answers: str) -> bytes:
    return b"".join(json.dumps({"prompt": "a b", "answer": answer}).encode() + b"\n" for answer in answers)


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_an_answer_that_no_reward_can_compare_is_named_before_a_device_is_taken(method: str, fetcher: Fetcher) -> None:
    spec = {"method": method, "rewards": [{"name": "right", "type": "accuracy"}]}
    rows = asked("1", "2", "see the drawing", "4")
    with pytest.raises(RunFailure, match=r"line 3: has the answer 'see the drawing' in 'answer'") as failure:
        prepared(fetcher, rows, **spec)
    assert failure.value.failure is FailureClass.BAD_ROW
    report = prepared(fetcher, rows, **spec, onBadRow="Drop", maxBadShare=0.5)
    assert report.rows is not None
    assert report.rows.kept == 3


def test_a_pattern_that_cannot_be_searched_is_refused_before_rows_are_read(fetcher: Fetcher) -> None:
    rewards = [{"name": "form", "type": "format", "pattern": "("}]
    with pytest.raises(RunFailure, match=r"rewards\[\]\.pattern '\(' of form is no regular expression") as failure:
        prepared(fetcher, b"broken", method="grpo", rewards=rewards)
    assert failure.value.failure is FailureClass.BAD_SPEC


def test_heads_that_the_devices_do_not_divide_are_refused_before_a_device_is_requested(fetcher: Fetcher) -> None:
    resources = {"accelerator": "nvidia", "count": 8}
    with pytest.raises(RunFailure, match=r"num_attention_heads of the model is \d+, which 8 devices") as failure:
        prepared(fetcher, MANY, resources=resources, parallelism={"tensorParallel": 8})
    assert failure.value.failure is FailureClass.BAD_SPEC


def test_stages_are_refused_that_outnumber_the_layers_before_a_device_is_requested(fetcher: Fetcher) -> None:
    resources = {"accelerator": "nvidia", "count": 8}
    with pytest.raises(RunFailure, match=r"num_hidden_layers of the model is 1, and each of 8 stages") as failure:
        prepared(fetcher, MANY, resources=resources, parallelism={"pipelineParallel": 8})
    assert failure.value.failure is FailureClass.BAD_SPEC


@pytest.mark.parametrize(
    ("lora", "start"),
    [({"from": {"uri": "s3://my-bucket/adapter"}}, "lora.from"), ({"init": "pissa", "rank": 2}, "lora.init pissa")],
)
def test_a_reference_that_a_strategy_cannot_have_is_refused_before_a_device_is_requested(
    lora: dict[str, Any], start: str, fetcher: Fetcher
) -> None:
    spec = {"resources": {"accelerator": "nvidia", "count": 2}, "lora": lora}
    zero3 = {"strategy": "zero3"}
    with pytest.raises(RunFailure, match=f"zero3 with {start}: method dpo compares") as failure:
        prepared(fetcher, PREFERENCES, **spec, method="dpo", parallelism=zero3)
    assert failure.value.failure is FailureClass.BAD_SPEC
    for accepted in (
        {"method": "dpo", "parallelism": {"strategy": "fsdp"}},
        {"method": "dpo", "parallelism": zero3, "dpo": {"referenceFree": True}},
    ):
        assert prepared(fetcher, PREFERENCES, **{**spec, **accepted}).estimate


IMAGE = tinyvision.picture("red")


@pytest.fixture(scope="module")
def sees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a model that reads images."""
    folder = tmp_path_factory.mktemp("vision")
    tinyvision.add_processor(tinyvision.make_model(folder, "qwen2_5_vl"), "qwen2_5_vl")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_images(local: Fetcher, model: dict[str, bytes], files: dict[str, bytes], form: str) -> RunReport:
    datasets = [{"uri": local.put("pictures", files), "format": form}]
    return local.prepare(local.job(local.put("m", model), datasets=datasets, until="data"))[0]


def test_the_tokens_of_images_are_counted_and_a_file_that_is_not_there_is_named(
    local: Fetcher, sees: dict[str, bytes]
) -> None:
    rows = b'{"image_path": "a.jpg", "text": "What?", "answer": "A kiwi."}\n' * 2
    report = read_images(local, sees, {"train.jsonl": rows, "a.jpg": IMAGE}, "vqa")
    assert report.rows is not None
    assert report.rows.kept == 2
    gone = rows + rows.replace(b"a.jpg", b"b.jpg")
    with pytest.raises(RunFailure, match=r"train\.jsonl line 3: names the file 'b\.jpg'") as failure:
        read_images(local, sees, {"train.jsonl": gone, "a.jpg": IMAGE}, "vqa")
    assert failure.value.failure is FailureClass.BAD_ROW


def test_images_for_a_model_of_text_alone_are_refused_before_a_device_is_taken(local: Fetcher) -> None:
    rows = b'{"image_path": "a.jpg", "text": "a", "answer": "a"}\n'
    with pytest.raises(RunFailure, match="the base model reads text alone"):
        read_images(local, WORDS, {"train.jsonl": rows, "a.jpg": IMAGE}, "vqa")


def test_texts_beside_images_are_captions(local: Fetcher, sees: dict[str, bytes]) -> None:
    files = {
        "a.jpg": IMAGE,
        "a.txt": b"A kiwi,\nripe.",
        "b/c.png": IMAGE,
        "b/c.txt": b" ",
        "notes.txt": b"x",
        "d.jpg": IMAGE,
    }
    report = read_images(local, sees, files, "caption")
    assert report.rows is not None
    assert report.rows.to_dict() == {"kept": 1, "dropped": [{"reason": "EmptyAnswer", "count": 1}]}


HEADER_BYTES = 8 + int.from_bytes(WORDS["model.safetensors"][:8], "little")
"""Bytes of the weights of WORDS that an estimate reads."""


@pytest.fixture
def words(quick: None) -> Iterator[Hub]:
    """A hub with WORDS."""
    with hub({"org/words": WORDS}) as server:
        yield server


def hub_job(local: Fetcher, words: Hub, scheme: str, data: str, **spec: Any) -> RunSpec:
    """A job with the model of the hub."""
    job = local.job(f"{scheme}://org/words", data, **{**GPU, **spec})
    return job.model_copy(update={"hub": servers(scheme, words.url)})


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("until", [Until.ESTIMATE, Until.DATA])
def test_of_a_model_of_a_hub_the_headers_are_enough_for_an_estimate(
    local: Fetcher, words: Hub, scheme: str, until: Until
) -> None:
    data = local.put("data", {"train.jsonl": MANY})
    before = local.objects()
    report, work = local.prepare(hub_job(local, words, scheme, data, until=until))
    assert report.estimate is not None
    assert (report.estimate.parameters, report.estimate.rows) == (PARAMETERS, 200)
    assert (report.run_uri, report.model_uri, report.rows is not None) == (None, None, True)
    assert words.sent["model.safetensors"] == HEADER_BYTES
    assert (local.objects(), names(work.root)) == (before, set())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("spec", "data", "failure", "sent"),
    [
        (
            {"resources": {"accelerator": "nvidia", "deviceMemory": "512Mi"}, "fit": "Refuse"},
            "data",
            FailureClass.WILL_NOT_FIT,
            HEADER_BYTES,
        ),
        ({}, "nowhere", FailureClass.DATASET_NOT_FOUND, 0),
        ({}, "bad", FailureClass.BAD_ROW, 0),
        ({"tuner": "full", "training": {"freeze": ["layers:7"]}}, "data", FailureClass.BAD_SPEC, 0),
    ],
)
def test_a_job_that_fails_before_it_trains_does_not_import_its_model(
    local: Fetcher, words: Hub, scheme: str, spec: dict[str, Any], data: str, failure: FailureClass, sent: int
) -> None:
    local.put("data", {"train.jsonl": MANY})
    local.put("bad", {"train.jsonl": b"{}\n"})
    before = local.objects()
    with pytest.raises(RunFailure) as caught:
        local.prepare(hub_job(local, words, scheme, join(local.store.uri, data), **spec))
    assert caught.value.failure is failure
    assert (words.sent["model.safetensors"], local.objects()) == (sent, before)


def test_a_job_without_devices_that_will_not_fit_does_not_import_its_model(local: Fetcher, words: Hub) -> None:
    data = local.put("data", {"train.jsonl": MANY})
    before = local.objects()
    with pytest.raises(RunFailure) as caught:
        local.fetch(hub_job(local, words, "hf", data, resources={"memory": "512Mi"}, fit="Refuse"))
    assert caught.value.failure is FailureClass.WILL_NOT_FIT
    assert (words.sent["model.safetensors"], local.objects()) == (HEADER_BYTES, before)


def test_a_job_that_trains_has_the_same_estimate_before_and_after_the_import(local: Fetcher, words: Hub) -> None:
    job = hub_job(local, words, "hf", local.put("data", {"train.jsonl": MANY}))
    first, _ = local.prepare(job)
    asked = len(words.asked)
    assert words.sent["model.safetensors"] == HEADER_BYTES + len(WORDS["model.safetensors"])
    second, _ = local.prepare(job)
    assert second == first
    assert first.estimate is not None
    assert first.run_uri is not None
    assert len(words.asked) == asked


def test_a_quantized_model_is_refused_by_its_configuration_before_its_weights_are_moved(
    local: Fetcher, quick: None
) -> None:
    config = json.dumps(CONFIG | {"quantization_config": {"quant_method": "gptq", "bits": 4}}).encode()
    with hub({"org/words": {**WORDS, "config.json": config}}) as server:
        job = hub_job(local, server, "hf", local.put("data", {"train.jsonl": MANY}), tuner="full")
        with pytest.raises(RunFailure, match=r"the base hf://org/words is quantized \(gptq\), and tuner full"):
            local.prepare(job)
        assert server.sent["model.safetensors"] == 0


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tinyspeech.make_model(tmp_path_factory.mktemp("speech"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def speech_job(fetcher: Fetcher, whisper: dict[str, bytes], rows: list[dict[str, str]], **spec: Any) -> RunSpec:
    """A job on two sounds, of 1 s and of 1.5 s."""
    sounds = {
        f"{name}.wav": tinyspeech.wav(tinyspeech.tone("low", seconds)) for name, seconds in (("a", 1), ("b", 1.5))
    }
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    data = fetcher.put("data", {"train.jsonl": lines, **sounds})
    return fetcher.job(fetcher.put("m", whisper), f"{data}/train.jsonl", **{**GPU, **spec})


def test_the_sounds_of_rows_are_read_before_devices_are_requested(fetcher: Fetcher, whisper: dict[str, bytes]) -> None:
    rows = [{"audio": f"{name}.wav", "text": "low", "language": "fr"} for name in "ab"]
    with pytest.raises(RunFailure, match=r"line 2: .*b\.wav of 1\.5 s, the model hears 1 s") as refused:
        fetcher.prepare(speech_job(fetcher, whisper, rows))
    assert refused.value.failure is FailureClass.BAD_ROW
    report, _ = fetcher.prepare(speech_job(fetcher, whisper, rows, onBadRow="Drop", maxBadShare=0.5))
    assert report.rows is not None
    assert (report.rows.kept, report.estimate) == (1, None)


@pytest.mark.parametrize(
    ("row", "spec", "sentence"),
    [
        (
            {"audio": "a.wav", "text": "low"},
            {"training": {"packing": True}},
            "packing true is not available for speech",
        ),
        ({"text": "low"}, {}, "learns from sounds with their texts alone"),
    ],
)
def test_what_a_speech_model_does_not_learn_is_refused_before_devices_are_requested(
    fetcher: Fetcher, whisper: dict[str, bytes], row: dict[str, str], spec: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RunFailure, match=sentence) as refused:
        fetcher.prepare(speech_job(fetcher, whisper, [row], **spec))
    assert refused.value.failure is FailureClass.BAD_SPEC
