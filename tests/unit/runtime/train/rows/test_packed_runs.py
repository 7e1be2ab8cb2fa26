"""Runs with packing, with a given chat template, and with rows that are too long."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import Run, again, make_run
from tests.unit.runtime.train.test_resume import ActAt, assert_equal, sigterm
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob_status import DroppedRows, Rows
from tunesmith_api.run import Outcome, RunReport
from tunesmith_runtime import train
from tunesmith_runtime.chat_template import template_hash
from tunesmith_runtime.data.example_file import example_lengths
from tunesmith_runtime.data.load import open_data
from tunesmith_runtime.data.packing import PackedRows, best_fit
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train import reporting
from tunesmith_runtime.train.methods import METHODS
from tunesmith_runtime.train.rows.loading import load_rows
from tunesmith_runtime.train.world.process_group import ALONE

ROWS = tinymodel.rows(90, seed=1)
PACKED: dict[str, Any] = {"packing": True, "globalBatchSize": 4, "microBatchSize": 2, "epochs": 3}
LORA: dict[str, Any] = {"tuner": "lora", "lora": {"dropout": 0.1}, "validation": {"fraction": 0.1}}
CLOSED = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
"""A template whose only own token closes a message."""


@pytest.fixture(autouse=True)
def report_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "SECONDS_BETWEEN_REPORTS", 0.0)


@pytest.fixture(scope="module")
def uninterrupted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunReport]:
    run = make_run(tmp_path_factory.mktemp("packed"), tiny, ROWS, PACKED, **LORA)
    return run, run.do(train.run)


def test_epochs_and_steps_count_sequences(uninterrupted: tuple[Run, RunReport]) -> None:
    run, report = uninterrupted
    lengths = example_lengths(open_data(run.work).train.data)
    sequences = len(set(best_fit(lengths, 64, 42).tolist()))
    assert len(lengths) == 81
    assert sequences < 41
    assert report.metrics
    assert report.metrics.steps == 3 * math.ceil(sequences / 4)
    assert report.metrics.tokens == 3 * sum(lengths)
    assert report.rows
    assert (report.rows.kept, report.rows.validation, report.rows.dropped) == (81, 9, None)


def test_a_packed_run_learns_the_task(uninterrupted: tuple[Run, RunReport]) -> None:
    losses = [entry["loss"] for entry in uninterrupted[0].log_history()]
    assert losses[-1] < losses[0] / 2


def test_a_packed_run_resumes_exactly(uninterrupted: tuple[Run, RunReport], tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, tiny, ROWS, PACKED, **LORA)
    for attempt, step in enumerate((2, 13), start=2):
        report = train.run(run.spec, run.work, ActAt(step, sigterm))
        assert report.outcome is Outcome.PREEMPTED
        run = again(run, tiny, ROWS, attempt)
    assert_equal(run, run.do(train.run), uninterrupted)


def given(
    tmp_path: Path, tiny: Path, rows: list[dict[str, Any]], template: str, training: dict[str, Any], **spec: Any
) -> Run:
    """A run with a chat template of its own."""
    source = {"configMap": {"name": "templates", "key": "closed"}}
    run = make_run(tmp_path, tiny, rows, {**training, "chatTemplate": source}, **spec)
    file = tmp_path / "chat_template.jinja"
    file.write_text(template)
    return Run(run.spec.model_copy(update={"chat_template_file": str(file)}), run.work)


def test_a_given_template_is_learned_saved_and_recorded(tmp_path: Path, tiny: Path) -> None:
    run = given(tmp_path, tiny, ROWS, CLOSED, {"maxSteps": 2})
    report = run.do(train.run)
    example = open_data(run.work).train[0]["input_ids"]
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(run.work.run / "adapter")
    question, answer = (message["content"] for message in ROWS[0]["messages"])
    assert saved.decode(example) == f"{question}<|im_end|>{answer}<|im_end|>"
    assert (run.work.run / "adapter" / "chat_template.jinja").read_text() == CLOSED
    assert saved.chat_template == CLOSED
    assert report.outcome is Outcome.SUCCEEDED
    result = run.directory.read_json("trained.json")
    assert result
    assert result["templateHash"] == template_hash(CLOSED)


def test_a_template_with_an_error_is_refused_before_weights_are_read(tmp_path: Path, tiny: Path) -> None:
    run = given(tmp_path, tiny, ROWS, "{% for m in messages %}\n{{ m.content }\n{% endfor %}", {"maxSteps": 2})
    with pytest.raises(RunFailure, match="key closed of ConfigMap templates has an error in line 2") as caught:
        run.do(train.run)
    assert caught.value.failure is FailureClass.BAD_SPEC


def chat(answer: int) -> dict[str, Any]:
    """A conversation of 5 tokens and those of the answer."""
    return {"messages": [{"role": "user", "content": "@@@"}, {"role": "assistant", "content": "@" * answer}]}


@pytest.mark.parametrize(
    ("truncation", "kept", "dropped", "truncated"),
    [
        ("drop", [8], "TooLong", None),
        ("truncate", [16, 8], None, 1),
        ("left", [8], "AnswerCutOff", None),
        ("split", [8], "TooLong", None),
    ],
)
def test_no_packed_row_begins_inside_an_answer(
    tmp_path: Path, tiny: Path, truncation: str, kept: list[int], dropped: str | None, truncated: int | None
) -> None:
    """Case 32: packing with maxLength 16, and conversations of 20 and of 8 tokens."""
    run = given(
        tmp_path, tiny, [chat(15), chat(3)], CLOSED, {"packing": True, "maxLength": 16, "truncation": truncation}
    )
    job = run.spec.fine_tune_job()
    tokenizer, data, packed, *_ = load_rows(run.spec, job, METHODS[job.method], run.work, ALONE)
    assert data.rows == Rows(
        kept=len(kept), dropped=[DroppedRows(reason=dropped, count=1)] if dropped else None, truncated=truncated
    )
    assert isinstance(packed, PackedRows)
    prompt = tokenizer("@@@<|im_end|>")["input_ids"]
    assert len(prompt) == 4
    rows = []
    for index in range(len(packed)):
        sequence = packed[index]
        at = 0
        for length in sequence["seq_lengths"]:
            assert sequence["input_ids"][at : at + 4] == prompt
            rows.append(length)
            at += length
    assert sorted(rows, reverse=True) == kept


@pytest.mark.parametrize("truncation", ["drop", "split"])
def test_a_packed_corpus_holds_every_token_once(tmp_path: Path, tiny: Path, truncation: str) -> None:
    """Case 32 for pretraining: texts of 20 and of 8 tokens, with their EOS."""
    rows = [{"text": "@" * 19}, {"text": "#" * 7}]
    training = {"packing": True, "maxLength": 16, "truncation": truncation}
    run = make_run(tmp_path, tiny, rows, training, method="pretrain")
    job = run.spec.fine_tune_job()
    tokenizer, data, packed, *_ = load_rows(run.spec, job, METHODS[job.method], run.work, ALONE)
    assert data.rows == Rows(kept=2, truncated=1)
    assert isinstance(packed, PackedRows)
    ids = [token for index in range(len(packed)) for token in packed[index]["input_ids"]]
    assert len(ids) == 28
    assert sorted(tokenizer.decode(ids).replace("<|im_end|>", "$")) == sorted("@" * 19 + "#" * 7 + "$$")
    assert len(packed) == 2
