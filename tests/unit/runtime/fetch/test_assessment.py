"""The assessment of a job before it trains: the estimate of its model and rows, and the refusal of a job that will not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.s3 import S3Server
from tests.unit.runtime.fetch.support import ADAPTER, CONFIG, MODEL, ROWS, TOKENIZER, Fetcher, names
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import TERMINATION_MESSAGE_BYTES, ModelRole, Outcome, ResolvedModel, RunReport, RunSpec, Store
from tunesmith_api.training import Until
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch import assessment as module
from tunesmith_runtime.report import encode
from tunesmith_runtime.storage import join

GPU: dict[str, Any] = {"resources": {"accelerator": "nvidia"}}
PARAMETERS = 8 * 4 + 4 * 3 + 4 * 16 + 3 * 24
"""Numbers in the weights of MODEL."""
WORDS = {**MODEL, "tokenizer.json": json.dumps({**TOKENIZER, "pre_tokenizer": {"type": "WhitespaceSplit"}}).encode()}
"""MODEL with a tokenizer of words."""
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


def test_of_large_data_a_sample_is_read_and_the_rest_follows_from_its_bytes(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(module, "SAMPLE_BYTES", 1000)
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
    monkeypatch.setattr(module, "WHOLE_BYTES", 10)
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


def test_headers_are_read_by_ranges_on_a_real_server(s3: S3Server, store: Store, fetcher: Fetcher) -> None:
    uri = fetcher.put("m", WORDS)
    found = module.read_architecture(fetcher.storage, uri)
    assert (found.parameters, found.stored_bytes, found.is_exact) == (PARAMETERS, 4 * PARAMETERS, True)


def test_rows_are_encoded_as_in_a_training_without_its_libraries(tiny: Path, tmp_path: Path) -> None:
    from tests.unit.runtime.train.support import make_run
    from tunesmith_runtime.train.course import load_rows
    from tunesmith_runtime.train.methods import METHODS
    from tunesmith_runtime.train.process_group import ALONE

    rows: list[dict[str, Any]] = [
        *tinymodel.rows(30),
        {
            "messages": [
                {"role": "user", "content": "What is tin? ü 漢"},
                {"role": "assistant", "content": "metal", "weight": 1},
            ]
        },
    ]
    run = make_run(tmp_path, tiny, rows, validation={"fraction": 0.2})
    job = run.spec.fine_tune_job()
    light = module.encode_lightly(job, run.work)
    counted = module.count_encoded(light, job)
    inputs = [list(row) for row in (*light.train["input_ids"], *light.train["labels"])]
    real = load_rows(run.spec, job, METHODS[job.method], run.work, ALONE)[1]
    assert inputs == [list(row) for row in (*real.train["input_ids"], *real.train["labels"])]
    assert counted.tokens == sum(map(len, real.train["input_ids"]))
    assert sum(counted.most_labelled) == sum(label != -100 for row in real.train["labels"] for label in row[1:])


def test_the_two_answers_of_a_preference_are_a_row_of_two_sequences(tiny: Path, tmp_path: Path) -> None:
    from tests.unit.runtime.train.methods.preferences import preferences
    from tests.unit.runtime.train.support import make_run

    run = make_run(tmp_path, tiny, preferences(10), method="dpo")
    job = run.spec.fine_tune_job()
    light = module.encode_lightly(job, run.work)
    counted = module.count_encoded(light, job)
    lengths = [len(each) for each in light.train["input_ids"]]
    assert (counted.rows, counted.tokens, len(lengths)) == (10, sum(lengths), 20)
    assert counted.longest[0] == max(lengths)
    assert counted.batch(4).rows == 8
    assert counted.mean_row == 2 * counted.mean_length


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
