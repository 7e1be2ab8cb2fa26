"""Answers to fixed prompts show what the model learns, and change nothing in the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run
from tunesmith_api.run import RunReport
from tunesmith_runtime import export, train
from tunesmith_runtime.sample_files import read_samples

ROWS = tinymodel.rows(64, seed=1)
PROMPTS = ["What is a kiwi? (901)", "What is a hammer? (902)"]
SPEC: dict[str, Any] = {"samples": {"prompts": PROMPTS, "everySteps": 16, "maxTokens": 12}, "lora": {"dropout": 0.1}}


@pytest.fixture(scope="module")
def sampled(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunReport]:
    run = make_run(tmp_path_factory.mktemp("sampled"), tiny, ROWS, {"epochs": 10}, **SPEC)
    return run, run.do(train.run)


def test_there_are_answers_before_in_and_after_the_training(sampled: tuple[Run, RunReport]) -> None:
    rounds = read_samples(sampled[0].directory)
    assert [each["step"] for each in rounds] == [0, 16, 32, 40]
    assert [[answer["prompt"] for answer in each["answers"]] for each in rounds] == [PROMPTS] * 4


def test_the_model_answers_at_the_end_what_it_has_learned(sampled: tuple[Run, RunReport]) -> None:
    before, after = (
        [answer["answer"] for answer in read_samples(sampled[0].directory)[index]["answers"]] for index in (0, -1)
    )
    assert after[0] == "fruit"
    assert set(after) <= set(tinymodel.CATEGORIES)
    assert not set(before) & set(tinymodel.CATEGORIES)


def test_the_training_is_the_same_without_samples(sampled: tuple[Run, RunReport], tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, tiny, ROWS, {"epochs": 10}, lora=SPEC["lora"])
    report = run.do(train.run)
    assert [entry["loss"] for entry in run.log_history()] == [entry["loss"] for entry in sampled[0].log_history()]
    assert report.artifacts
    assert sampled[1].artifacts
    assert report.artifacts[0].digest == sampled[1].artifacts[0].digest
    assert run.spec.spec_hash == sampled[0].spec.spec_hash


def test_the_page_of_the_run_has_the_first_and_the_last_answers(sampled: tuple[Run, RunReport]) -> None:
    run, _ = sampled
    run.do(export.run)
    content = (run.directory.read_bytes("report.html") or b"").decode()
    assert "<th>Step 0</th><th>Step 40</th>" in content
    assert "<td>fruit</td>" in content


def test_a_pretrained_model_continues_the_prompt_as_a_text(tiny: Path, tmp_path: Path) -> None:
    texts = [{"text": "one two three four five six seven eight"}] * 32
    samples = {"prompts": ["one two three"], "maxTokens": 8}
    run = make_run(tmp_path, tiny, texts, {"epochs": 8, "globalBatchSize": 8}, method="pretrain", samples=samples)
    run.do(train.run)
    (answer,) = read_samples(run.directory)[-1]["answers"]
    assert answer["answer"].startswith(" four fi")
