"""`tunesmith check`: the spec and every row of the jobs of a file, with the first bad rows, their places and fixes."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.hub_server import hub
from tests.s3 import S3Server, s3, s3_server
from tests.unit.cli.commands.test_estimate import HEAVY, PROGRAM, WORDS, manifest, put, write
from tests.unit.runtime.fetch.conftest import certificate
from tunesmith_cli import rowcheck
from tunesmith_cli.main import main

__all__ = ["certificate", "s3", "s3_server"]

GOOD = b'{"prompt": "a", "completion": "b", "note": 1}\n'
NO_COMPLETION = b'{"prompt": "a", "completion": 3}\n'
BROKEN = b'{"prompt": \n'
LONG = b'{"prompt": "' + b"a " * 100 + b'", "completion": "b"}\n'
UNKNOWN_MODEL = {"fineTuneJob": {"name": "other"}}


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", "-f", str(path), *arguments], catch_exceptions=False)


def check(folder: Path, rows: dict[str, bytes], model: Any = None, **spec: Any) -> tuple[int, dict[str, Any]]:
    """Check a job with these files of rows: exit code and result."""
    data = put(folder / "data", rows)
    result = run(write(folder, manifest("demo", model or UNKNOWN_MODEL, data, **spec)), "-o", "json")
    assert result.stderr == ""
    (found,) = json.loads(result.stdout)
    return result.exit_code, found


def test_a_job_without_a_fault_has_its_counts_and_the_keys_that_are_not_read(tmp_path: Path) -> None:
    code, found = check(tmp_path, {"a.jsonl": GOOD * 3, "b.jsonl": GOOD}, put(tmp_path / "m", WORDS))
    assert (code, found["problems"]) == (0, [])
    pods = "pods read file:// only where the chart's store is file://"
    assert found["notes"] == [f"{tmp_path.as_uri()}/{name}: {pods}" for name in ("m", "data")]
    (data,) = found["datasets"]
    assert (data["field"], data["rows"], data["kept"], data["ignored"]) == ("datasets[0]", 4, 4, {"note": 4})


def test_rows_with_images_are_left_to_the_pod_that_has_the_processor(tmp_path: Path) -> None:
    row = b'{"image_path": "a.png", "text": "a", "answer": "b"}\n'
    seeing = {**WORDS, "processor_config.json": b"{}"}
    code, found = check(tmp_path, {"a.jsonl": row, "a.png": b""}, put(tmp_path / "m", seeing))
    assert (code, found["problems"]) == (0, [])
    (data,) = found["datasets"]
    assert data["unknown"].endswith("reads in a pod; set spec.until: data, and apply the job")
    code, found = check(tmp_path / "text", {"a.jsonl": row, "a.png": b""}, put(tmp_path / "t", WORDS))
    assert code == 1
    assert "the base model reads text alone" in found["problems"][0]["message"]


def test_the_first_bad_rows_are_shown_with_file_line_and_fix(tmp_path: Path) -> None:
    unknown = b'{"input": "a", "output": "b"}\n'
    data = put(tmp_path / "data", {"train.jsonl": GOOD + NO_COMPLETION + GOOD + BROKEN + unknown})
    result = run(write(tmp_path, manifest("demo", put(tmp_path / "m", WORDS), data)))
    assert result.exit_code == 1
    shown = "".join(line for line in result.stdout.splitlines(True) if "note: " not in line)
    assert shown.startswith(
        "demo: would fail\n"
        "  BadRow: 3 of 5 rows of datasets[0] are bad, and onBadRow is Fail\n"
        "    fix: correct the rows, or set spec.onBadRow: Drop\n"
        f"  datasets[0] {data}: 5 rows, 2 kept, dropped 3 BadRow\n"
        "    keys that are not read: note (2 rows)\n"
        "    BadRow: train.jsonl line 2: 'completion' is a number; expected a string\n"
    )
    assert "    BadRow: train.jsonl line 4: " in result.stdout
    assert "    BadRow: train.jsonl line 5: " in result.stdout


def test_the_fix_of_a_row_is_that_of_the_training(tmp_path: Path) -> None:
    code, found = check(tmp_path, {"train.jsonl": b'{"input": "a", "output": "b"}\n'})
    (example,) = found["datasets"][0]["examples"]
    assert code == 1
    assert example["hint"] == "rename keys with datasets[].columns: {input: instruction}"
    code, found = check(
        tmp_path,
        {"train.jsonl": b'{"input": "a", "output": "b"}\n'},
        datasets=[{"uri": (tmp_path / "data").as_uri(), "columns": {"input": "instruction"}}],
    )
    assert code == 0


@pytest.mark.parametrize(("spec", "code"), [({}, 1), ({"maxBadShare": 0.5}, 0), ({"maxBadShare": 0.2}, 1)])
def test_with_on_bad_row_drop_a_job_fails_above_the_share(spec: dict[str, Any], code: int, tmp_path: Path) -> None:
    got, found = check(tmp_path, {"train.jsonl": GOOD * 2 + BROKEN}, onBadRow="Drop", **spec)
    assert got == code
    assert bool(found["problems"]) == bool(code)
    assert found["datasets"][0]["dropped"] == {"BadRow": 1}


def test_with_a_tokenizer_rows_are_dropped_as_the_training_drops_them(tmp_path: Path) -> None:
    rows, training = {"train.jsonl": GOOD + LONG}, {"maxLength": 32, "globalBatchSize": 8}
    code, found = check(tmp_path, rows, put(tmp_path / "m", WORDS), training=training)
    assert (code, found["datasets"][0]["dropped"]) == (0, {"TooLong": 1})
    (example,) = found["datasets"][0]["examples"]
    assert example["place"] == "line 2"
    assert example["sentence"] == "has 102 tokens, and training.maxLength is 32"


def test_without_a_tokenizer_the_rest_is_read_and_what_is_not_checked_is_named(tmp_path: Path) -> None:
    code, found = check(tmp_path, {"train.jsonl": GOOD + LONG}, training={"maxLength": 32, "globalBatchSize": 8})
    assert code == 0
    assert found["datasets"][0]["kept"] == 2
    assert found["notes"][-1].startswith(
        "rows are read by their formats alone, without lengths and chat template: spec.model is a "
    )
    config_map = {"chatTemplate": {"configMap": {"name": "t", "key": "k"}}, "globalBatchSize": 8}
    _, found = check(tmp_path, {"train.jsonl": GOOD}, put(tmp_path / "m", WORDS), training=config_map)
    assert found["notes"][-1].endswith(
        "training.chatTemplate is in a ConfigMap, which is not read from here: give its text by --chat-template"
    )


def test_every_refusal_of_the_spec_is_a_problem_with_its_fix(tmp_path: Path) -> None:
    code, found = check(tmp_path, {"train.jsonl": GOOD}, qlora={"quantization": "hqq"}, tuner="qlora", onBadRows="Drop")
    assert code == 1
    assert [each["message"].split(":")[0] for each in found["problems"]] == ["spec.onBadRows", "qlora.quantization hqq"]
    assert all(each["hint"] for each in found["problems"])
    assert found["datasets"][0]["kept"] == 1


def test_rows_that_the_method_does_not_learn_from_are_a_problem(tmp_path: Path) -> None:
    code, found = check(tmp_path, {"train.jsonl": b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n'})
    assert code == 1
    assert "method sft learns from" in found["problems"][0]["message"]
    assert "spec.datasets[].format" in found["problems"][0]["hint"]


def test_data_of_which_no_row_remains_are_a_problem(tmp_path: Path) -> None:
    code, found = check(tmp_path, {"train.jsonl": b'{"prompt": "a", "completion": ""}\n'}, put(tmp_path / "m", WORDS))
    assert (code, found["datasets"][0]["dropped"]) == (1, {"EmptyAnswer": 1})
    assert found["problems"][0]["message"].startswith("EmptyDataset: no row of ")


@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_rows_from_which_the_method_cannot_learn_as_a_whole_are_a_problem(has_tokenizer: bool, tmp_path: Path) -> None:
    good = b'{"prompt": "a", "completion": "b", "label": true}\n'
    model = put(tmp_path / "m", WORDS) if has_tokenizer else UNKNOWN_MODEL
    code, found = check(tmp_path, {"train.jsonl": good * 2}, model, method="kto")
    assert code == 1
    assert found["problems"][0]["message"].startswith("EmptyDataset: all 2 rows have a good answer")
    both = {"train.jsonl": good + good.replace(b"true", b"false")}
    assert check(tmp_path, both, model, method="kto")[0] == 0


def test_what_rewards_cannot_read_is_a_problem(tmp_path: Path) -> None:
    rows = {"train.jsonl": b'{"prompt": "a", "answer": "1"}\n{"prompt": "a", "solution": "1"}\n'}
    rewards: list[dict[str, Any]] = [{"name": "right", "type": "accuracy"}]
    code, found = check(tmp_path, rows, method="grpo", rewards=rewards)
    assert code == 1
    assert found["problems"][0]["message"].startswith("BadRow: 1 of 2 rows of datasets[0] are bad")
    rewards = [{"name": "form", "type": "format", "pattern": "("}]
    code, found = check(tmp_path, rows, method="grpo", rewards=rewards)
    assert code == 1
    assert "is no regular expression" in found["problems"][0]["message"]


def test_a_missing_file_and_a_damaged_file_are_problems(tmp_path: Path) -> None:
    job = manifest("demo", UNKNOWN_MODEL, (tmp_path / "none.jsonl").as_uri())
    result = run(write(tmp_path, job))
    assert result.exit_code == 1
    assert f"DatasetNotFound: data set file://{tmp_path}/none.jsonl" in result.stdout
    code, found = check(tmp_path, {"train.jsonl.gz": gzip.compress(GOOD * 500)[:-20]})
    assert code == 1
    assert "train.jsonl.gz" in found["problems"][0]["message"]


def test_validation_rows_are_read_and_a_training_row_that_repeats_one_is_the_duplicate(tmp_path: Path) -> None:
    held_out = put(tmp_path / "held", {"v.jsonl": GOOD})
    other = b'{"prompt": "b", "completion": "a"}\n'
    code, found = check(tmp_path, {"train.jsonl": GOOD + other}, drop=["Duplicate"], validation={"uri": held_out})
    assert code == 0
    train, validation = found["datasets"]
    assert (train["kept"], train["dropped"]) == (1, {"Duplicate": 1})
    assert (validation["field"], validation["kept"]) == ("validation.uri", 1)


def test_rows_with_a_question_of_an_evaluation_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    tests = put(tmp_path / "tests", {"qa.jsonl": b'{"question": "A"}\n'})
    rows = {"train.jsonl": GOOD + b'{"prompt": "b", "completion": "a"}\n'}
    code, found = check(tmp_path, rows, decontaminate=[{"uri": tests}, {"name": "gsm8k"}])
    train, unread = found["datasets"]
    assert (code, train["kept"], train["dropped"]) == (0, 1, {"Contaminated": 1})
    assert unread["field"] == "decontaminate[1]"
    assert unread["unknown"].startswith("data set hf://openai/gsm8k: http://127.0.0.1:9/api/datasets/openai/gsm8k/")
    code, found = check(tmp_path, rows, decontaminate=[{"uri": put(tmp_path / "bad", {"qa.jsonl": b"{}\n"})}])
    assert code == 1
    assert found["problems"][0]["message"].startswith("BadRow: qa.jsonl line 1:")


def test_files_of_this_machine_can_stand_for_the_data_sets(tmp_path: Path) -> None:
    job = manifest("demo", UNKNOWN_MODEL, "s3://my-bucket/a.jsonl", "pvc://claim/rows")
    put(tmp_path / "data", {"new.jsonl": GOOD * 2})
    path, file = write(tmp_path, job), str(tmp_path / "data" / "new.jsonl")
    result = run(path, "--data", file, "-o", "json")
    first, second = json.loads(result.stdout)[0]["datasets"]
    assert result.exit_code == 0
    assert not any("file://" in note for note in json.loads(result.stdout)[0]["notes"])
    assert (first["kept"], second["unknown"]) == (2, "pvc://claim/rows: pvc:// is not read from here")
    assert run(path, *("--data", file) * 3).exit_code == 2


def test_rows_of_a_bucket_are_read_with_the_variables_of_the_shell(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    s3.client().put_object(Bucket=bucket, Key="rows/train.jsonl.gz", Body=gzip.compress(GOOD + NO_COMPLETION))
    job = manifest("demo", UNKNOWN_MODEL, f"s3://{bucket}/rows", storage={"endpoint": s3.endpoint})
    result = run(write(tmp_path, job), "-o", "json")
    (data,) = json.loads(result.stdout)[0]["datasets"]
    assert result.exit_code == 1
    assert (data["rows"], data["kept"], data["examples"][0]["place"]) == (2, 1, "line 2")


def test_a_bucket_that_cannot_be_reached_from_here_is_named_and_is_no_problem_of_the_job(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    job = manifest("demo", UNKNOWN_MODEL, f"s3://{s3.new_bucket()}/rows", storage={"endpoint": s3.endpoint})
    result = run(write(tmp_path, job))
    assert result.exit_code == 0
    assert result.stdout.startswith("demo: no problem found in the spec, and no rows were read\n")
    assert (
        "AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and AWS_REGION in this shell"
        in result.stdout.partition(": not read: ")[2]
    )


def test_every_job_of_the_file_is_checked(tmp_path: Path) -> None:
    good, bad = put(tmp_path / "good", {"a.jsonl": GOOD}), put(tmp_path / "bad", {"a.jsonl": BROKEN})
    jobs = [manifest("bad", UNKNOWN_MODEL, bad), {"kind": "EvalJob"}, manifest("good", UNKNOWN_MODEL, good)]
    result = run(write(tmp_path, *jobs))
    assert result.exit_code == 1
    assert "bad: would fail\n" in result.stdout
    assert "\n\ngood: no problem found\n" in result.stdout


def test_python_m_tunesmith_cli_checks_without_a_framework_or_a_client_of_a_cluster(tmp_path: Path) -> None:
    data = put(tmp_path / "data", {"train.jsonl": GOOD + BROKEN})
    path = write(tmp_path, manifest("demo", put(tmp_path / "m", WORDS), data))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}

    def program(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments, "check", "-f", str(path)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = program("-m", "tunesmith_cli")
    assert (done.returncode, done.stderr) == (1, "")
    assert "BadRow: train.jsonl line 2: " in done.stdout
    assert HEAVY & set(json.loads(program("-c", PROGRAM).stderr)) == set()


def test_rows_with_images_are_checked_with_the_files_that_they_name(tmp_path: Path) -> None:
    rows = b'{"image": "a.jpg", "caption": "a kiwi"}\n{"image": "b.jpg", "caption": "a pear"}\n'
    data = put(tmp_path / "data", {"train.jsonl": rows, "a.jpg": b"not read"})
    datasets = [{"uri": data, "format": "caption"}]
    code, found = check(tmp_path, {}, datasets=datasets, until="data")
    (example,) = found["datasets"][0]["examples"]
    assert (code, found["datasets"][0]["kept"]) == (1, 1)
    assert (example["place"], "names the file 'b.jpg'" in example["sentence"]) == ("line 2", True)
    put(tmp_path / "data", {"b.jpg": b"not read"})
    code, found = check(tmp_path, {}, datasets=datasets, until="data")
    assert (code, found["problems"], found["datasets"][0]["kept"]) == (0, [], 2)


def test_rows_are_rendered_in_the_chat_template_that_is_given(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ 'a ' * 30 }}{{ m.content }} {% endfor %}")
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    data = put(tmp_path / "data", {"train.jsonl": json.dumps({"messages": messages}).encode()})
    training = {"maxLength": 40, "globalBatchSize": 8, "chatTemplate": {"configMap": {"name": "t", "key": "k"}}}
    path = write(tmp_path, manifest("demo", put(tmp_path / "m", WORDS), data, training=training))
    (found,) = json.loads(run(path, "-o", "json", "--chat-template", str(template)).stdout)
    assert found["datasets"][0]["dropped"] == {"TooLong": 1}
    assert not any("by their formats alone" in note for note in found["notes"])


@pytest.mark.parametrize(("scheme", "endpoint"), [("hf", "HF_ENDPOINT"), ("ms", "MODELSCOPE_ENDPOINT")])
def test_rows_of_a_hub_are_read_with_their_places(
    scheme: str, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"README.md": b"", "train.jsonl": GOOD + NO_COMPLETION + GOOD}
    path = write(tmp_path, manifest("demo", put(tmp_path / "m", WORDS), f"{scheme}://org/rows"))
    with hub({"datasets/org/rows": files}) as server:
        monkeypatch.setenv(endpoint, server.url)
        result = run(path)
    assert result.exit_code == 1
    assert f"datasets[0] {scheme}://org/rows: 3 rows, 2 kept, dropped 1 BadRow" in result.stdout
    assert "BadRow: train.jsonl line 2: 'completion' is a number; expected a string" in result.stdout


@pytest.mark.parametrize("name", ["train.jsonl", "train.csv.gz"])
def test_of_large_rows_of_a_hub_the_first_ones_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rowcheck, "REMOTE_BYTES", 100)
    monkeypatch.setattr(rowcheck, "SAMPLE_BYTES", 300)
    table = b"prompt,completion\n" + b"".join(b"%d,b\n" % number for number in range(3000))
    files = {"train.jsonl": GOOD * 4 + BROKEN + GOOD * 100, "train.csv.gz": gzip.compress(table)}
    path = write(tmp_path, manifest("demo", put(tmp_path / "m", WORDS), "hf://org/rows", onBadRow="Drop"))
    with hub({"datasets/org/rows": {name: files[name]}}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        result = run(path)
        assert server.sent[name] < len(files[name])
    assert result.exit_code == 0
    assert "datasets[0] hf://org/rows: the first " in result.stdout
    assert ("BadRow: train.jsonl line 5: " in result.stdout) is (name == "train.jsonl")


def test_a_file_of_a_web_server_is_read_and_a_server_that_does_not_answer_is_named(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with hub({"web/files": {"rows.jsonl": GOOD * 3}}, certificate) as server:
        urls = [f"{server.url}/web/{name}.jsonl" for name in ("rows", "absent")]
        path = write(tmp_path, manifest("demo", put(tmp_path / "m", WORDS), *urls))
        result = run(path)
    assert result.exit_code == 1
    assert f"datasets[0] {urls[0]}: 3 rows, 3 kept" in result.stdout
    assert f"  DatasetNotFound: data set {urls[1]}: {urls[1]}: HTTP Error 404: Not Found" in result.stdout
    result = run(path)
    assert result.exit_code == 0
    assert f"datasets[0] {urls[0]}: not read: data set {urls[0]}: {urls[0]}: [Errno 111]" in result.stdout
