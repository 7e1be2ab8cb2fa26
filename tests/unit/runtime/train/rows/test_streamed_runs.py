"""Runs whose rows are streamed: the same rows and bytes, undisturbed or resumed, and an end after maxSteps only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import Run, again, make_run
from tests.unit.runtime.train.test_resume import ActAt, Crash, assert_equal, crash, sigterm
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome, RunReport
from tunesmith_runtime import train
from tunesmith_runtime.data import stream
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train import reporting
from tunesmith_runtime.train.losses import cross_entropy
from tunesmith_runtime.workdir import DataFile

ROWS = tinymodel.rows(10, seed=1)
STREAMED: dict[str, Any] = {"streaming": True, "maxSteps": 20, "epochs": None, "globalBatchSize": 1}
MANY = tinymodel.rows(90, seed=1)
PACKED: dict[str, Any] = {**STREAMED, "packing": True, "globalBatchSize": 4, "microBatchSize": 2}
LORA: dict[str, Any] = {"tuner": "lora", "lora": {"dropout": 0.1}}


@pytest.fixture(autouse=True)
def report_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "SECONDS_BETWEEN_REPORTS", 0.0)


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The rows that pass through the loss."""
    seen: list[list[int]] = []
    original = cross_entropy.answer_loss

    def recorded(model: Any, head: Any, inputs: Any, tokens: Any = None) -> Any:
        seen.append(inputs["input_ids"][0].tolist())
        return original(model, head, inputs, tokens)

    monkeypatch.setattr(cross_entropy, "answer_loss", recorded)
    return seen


def test_a_stream_killed_in_its_second_pass_goes_on_at_the_row(
    tiny: Path, tmp_path: Path, learned: list[list[int]]
) -> None:
    """Case 34: 10 rows, batch 1, maxSteps 20, killed after step 12."""
    whole = make_run(tmp_path / "whole", tiny, ROWS, STREAMED, **LORA)
    expected = whole.do(train.run)
    first_pass, second_pass = learned[1:11], learned[11:]  # the dry pass comes first
    assert sorted(first_pass) == sorted(second_pass)
    assert first_pass != second_pass
    run = make_run(tmp_path / "killed", tiny, ROWS, STREAMED, checkpoint={"everySteps": 12}, **LORA)
    with pytest.raises(Crash):
        train.run(run.spec, run.work, ActAt(13, crash))
    assert [step for step, _ in run.directory.checkpoints()] == [12]
    run = again(run, tiny, ROWS, 2)
    learned.clear()
    report = run.do(train.run)
    assert learned == second_pass[2:]
    assert report.resumed_from_step == 12
    assert report.outcome is Outcome.SUCCEEDED
    assert_equal(run, report, (whole, expected))
    assert report.rows == expected.rows
    assert expected.rows
    assert expected.rows.kept == 10
    assert [entry["epoch"] for entry in run.log_history()] == [0.0] * 9 + [1.0] * 10 + [2.0]


def validated(run: Run) -> Run:
    """The run with a file of validation rows."""
    tinymodel.write_rows(run.work.data / "01.jsonl", ROWS[:2])
    files = [*run.work.data_files(), DataFile(path="01.jsonl", uri="s3://data/valid.jsonl", validation=0)]
    run.work.write_data_files(files)
    return run


@pytest.mark.parametrize("rows", [ROWS, tinymodel.rows(40, seed=1)], ids=["two passes", "part of a pass"])
def test_a_stream_stopped_in_its_last_evaluation_reports_its_rows(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]
) -> None:
    from tunesmith_runtime.train.trainers.base import RunMixin

    def stopped(trainer: RunMixin, *arguments: Any, **options: Any) -> Any:
        sigterm()
        return super(RunMixin, trainer).prediction_step(*arguments, **options)

    monkeypatch.setattr(stream, "WINDOW_ROWS", 4)
    spec: dict[str, Any] = {"validation": {"uri": "s3://data/valid.jsonl"}, **LORA}
    expected = validated(make_run(tmp_path / "whole", tiny, rows, STREAMED, **spec)).do(train.run)
    run = validated(make_run(tmp_path / "stopped", tiny, rows, STREAMED, **spec))
    with monkeypatch.context() as patched:
        patched.setattr(RunMixin, "prediction_step", stopped)
        report = run.do(train.run)
    assert report.outcome is Outcome.PREEMPTED
    assert report.last_checkpoint
    assert report.last_checkpoint.step == 20
    report = validated(again(run, tiny, rows, 2)).do(train.run)
    assert report.outcome is Outcome.SUCCEEDED
    assert report.rows == expected.rows
    assert expected.rows
    assert expected.rows.kept == 10 if rows is ROWS else expected.rows.kept >= 20


def test_a_packed_stream_resumes_exactly(tiny: Path, tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", tiny, MANY, PACKED, **LORA)
    expected = whole.do(train.run)
    run = make_run(tmp_path / "stopped", tiny, MANY, PACKED, **LORA)
    for attempt, step in enumerate((2, 13), start=2):
        report: RunReport = train.run(run.spec, run.work, ActAt(step, sigterm))
        assert report.outcome is Outcome.PREEMPTED
        run = again(run, tiny, MANY, attempt)
    assert_equal(run, run.do(train.run), (whole, expected))


def test_a_bad_row_is_named_when_it_is_reached(tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, tiny, [*MANY, {"messages": "none"}], {**STREAMED, "globalBatchSize": 8, "maxSteps": 4})
    with pytest.raises(RunFailure, match=r"train\.jsonl line 91") as caught:
        run.do(train.run)
    assert caught.value.failure is FailureClass.BAD_ROW


def dropped_places(run: Run) -> list[str]:
    """The places of the rows in dropped.jsonl of the run's folder."""
    content = run.directory.storage.read_bytes(f"{run.directory.uri}/dropped.jsonl")
    return [json.loads(line)["place"] for line in content.splitlines()]


def test_a_stream_with_too_many_bad_rows_leaves_the_first_ones_in_the_run_folder(tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, tiny, [ROWS[0], {"messages": "none"}], STREAMED, onBadRow="Drop")
    with pytest.raises(RunFailure, match=r"1 of 2 rows of .* are bad") as caught:
        run.do(train.run)
    assert caught.value.hint == (
        "correct the rows (the run's folder has the first ones in dropped.jsonl), or raise spec.maxBadShare"
    )
    assert dropped_places(run) == ["line 2"]


def test_a_resumed_stream_reports_each_dropped_row_once(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "WINDOW_ROWS", 4)
    bad = {"messages": "none"}
    rows = [bad, *ROWS[:6], bad, *ROWS[6:]]
    spec: dict[str, Any] = {"onBadRow": "Drop", "maxBadShare": 0.2, **LORA}
    run = make_run(tmp_path / "stopped", tiny, rows, STREAMED, **spec)
    assert train.run(run.spec, run.work, ActAt(13, sigterm)).outcome is Outcome.PREEMPTED
    run = again(run, tiny, rows, 2)
    report = run.do(train.run)
    assert report.rows
    assert report.rows.dropped
    assert [(each.reason, each.count) for each in report.rows.dropped] == [("BadRow", 2)]
    assert dropped_places(run) == ["line 1", "line 8"]
