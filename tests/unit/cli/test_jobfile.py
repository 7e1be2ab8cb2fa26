"""Reading FineTuneJobs from files: what would be refused is named with its field and its fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith_cli.jobfile import JobFile, read_jobs

SPEC: dict[str, Any] = {
    "model": {"uri": "s3://my-bucket/model"},
    "datasets": [{"uri": "s3://my-bucket/train.jsonl"}],
}


def read(folder: Path, *documents: Any) -> list[JobFile]:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return read_jobs(path)


def job(name: str = "demo", **spec: Any) -> dict[str, Any]:
    return {"kind": "FineTuneJob", "metadata": {"name": name}, "spec": {**SPEC, **spec}}


def test_every_fine_tune_job_of_every_document_and_list_is_read(tmp_path: Path) -> None:
    others = [{"kind": "ConfigMap", "metadata": {"name": "c"}}, None]
    found = read(tmp_path, job("a"), *others, {"kind": "List", "items": [job("b"), job("c")]})
    assert [(each.name, each.refused) for each in found] == [("a", ()), ("b", ()), ("c", ())]
    assert all(each.spec is not None for each in found)


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ({"trainning": {}}, "spec.trainning: unknown field", "correct or remove it"),
        ({"training": {"maxLenght": 1}}, "spec.training.maxLenght: unknown field", "correct or remove it"),
        ({"datasets": [{"uri": "s3://my-bucket/a", "spilt": "train"}]}, "spec.datasets[0].spilt: unknown field", None),
        ({"training": {"maxLength": 0}}, "spec.training.maxLength: ", None),
        ({"datasets": [{"uri": "train.jsonl"}]}, 'spec.datasets[0].uri: "train.jsonl" ', None),
        (
            {"training": {"optimizer": "galore"}},
            "training.optimizer galore with tuner lora: ",
            "use optimizer adamw, or tuner full",
        ),
        ({"model": {}}, "spec.model: 0 of name, uri, fineTuneJob, inferenceService are set", "set exactly one"),
        (
            {"validation": {"datasets": [{"name": "a", "uri": "s3://my-bucket/v"}]}},
            "spec.validation.datasets[0]: 2 of name, uri are set",
            "set exactly one of name, uri in spec.validation.datasets[0]",
        ),
    ],
)
def test_a_refusal_has_the_field_and_the_fix(
    spec: dict[str, Any], message: str, hint: str | None, tmp_path: Path
) -> None:
    (found,) = read(tmp_path, job(**spec))
    (refusal,) = found.refused
    assert refusal.message.startswith(message)
    assert hint is None or refusal.hint.startswith(hint)


def test_all_refusals_of_a_job_are_found_at_once(tmp_path: Path) -> None:
    (found,) = read(
        tmp_path, job(tuner="qlora", qlora={"quantization": "hqq"}, training={"optimizer": "galore"}, unknown=1)
    )
    assert [each.message.split(":")[0] for each in found.refused] == [
        "spec.unknown",
        "qlora.quantization hqq",
        "training.optimizer galore with tuner qlora",
    ]
