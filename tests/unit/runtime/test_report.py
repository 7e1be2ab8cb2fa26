"""The report of a container fits into its termination message, is complete, and holds no secret."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.evaljob import Result
from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_api.finetunejob_status import DatasetRows, IgnoredKey, Rows
from tunesmith_api.run import Outcome, RunReport, Verb
from tunesmith_api.status import Artifact
from tunesmith_runtime.data.row_counts import OTHER_KEYS
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.report import (
    LOGGED_REPORT_BYTES,
    TERMINATION_MESSAGE_BYTES,
    encode,
    failed,
    fitted,
    start_logging,
    write_report,
)


@given(
    message=st.text(max_size=9000),
    hint=st.text(max_size=5000),
    tail=st.text(max_size=9000),
    limit=st.integers(400, 4096),
)
def test_any_failure_fits_and_can_be_read_back(message: str, hint: str, tail: str, limit: int) -> None:
    content = encode(failed(Verb.TRAIN, RunFailure(FailureClass.BAD_ROW, message, hint), tail), limit)
    assert len(content) <= limit
    report = RunReport.model_validate_json(content)
    assert report.failure is not None
    assert report.failure.class_ is FailureClass.BAD_ROW
    assert report.outcome is Outcome.FAILED


def test_the_log_is_cut_before_the_message_and_keeps_its_end() -> None:
    tail = "\n".join(f"line {number}" for number in range(1000))
    content = encode(failed(Verb.TRAIN, RunFailure(FailureClass.BAD_ROW, "m" * 1000, "h" * 100), tail))
    report = RunReport.model_validate_json(content)
    assert report.failure is not None
    assert (report.failure.message, report.failure.hint) == ("m" * 1000, "h" * 100)
    assert str(report.failure.log_tail).endswith("line 999")
    assert TERMINATION_MESSAGE_BYTES - 600 < len(content) <= TERMINATION_MESSAGE_BYTES


def test_names_of_ignored_keys_are_dropped_before_artifacts_and_their_rows_stay_counted() -> None:
    keys = [IgnoredKey(key=f"{number:02}" + "\N{GRINNING FACE}" * 58, count=20 - number) for number in range(15)]
    keys.append(IgnoredKey(key=OTHER_KEYS, count=7))
    artifact = Artifact(name="merged", type="model", uri="s3://runs/" + "x" * 900, digest="sha256:" + "0" * 64)
    rows = Rows(kept=3, ignored_keys=keys)
    report = RunReport(
        verb=Verb.TRAIN, outcome=Outcome.SUCCEEDED, rows=rows, artifacts=[artifact], model_digest="sha256:" + "0" * 64
    )
    written = encode(report)
    assert len(written) <= TERMINATION_MESSAGE_BYTES
    kept = RunReport.model_validate_json(written)
    assert (kept.artifacts, kept.model_digest) == ([artifact], report.model_digest)
    assert kept.rows is not None
    named = kept.rows.ignored_keys or []
    assert named[:-1] == keys[: len(named) - 1] != []
    assert named[-1].key == OTHER_KEYS
    assert sum(each.count for each in named) == sum(each.count for each in keys)


def test_data_sets_that_do_not_fit_are_counted_after_the_keys() -> None:
    datasets = [DatasetRows(index=index, rows=10**6, used=10**6, repeated=10**5, left=0) for index in range(64)]
    keys = [IgnoredKey(key="id", count=2), IgnoredKey(key="url", count=1)]
    rows = Rows(kept=3, ignored_keys=keys, datasets=datasets)
    written = encode(RunReport(verb=Verb.TRAIN, outcome=Outcome.SUCCEEDED, rows=rows))
    assert TERMINATION_MESSAGE_BYTES - 100 < len(written) <= TERMINATION_MESSAGE_BYTES
    kept = RunReport.model_validate_json(written).rows
    assert kept is not None
    assert kept.ignored_keys == [IgnoredKey(key=OTHER_KEYS, count=3)]
    assert kept.datasets == datasets[: len(kept.datasets or ())] != []
    assert len(kept.datasets or ()) + (kept.more_datasets or 0) == 64


def test_a_short_report_is_unchanged() -> None:
    artifact = Artifact(name="merged", uri="s3://b/x", digest="d", size_bytes=3)
    report = RunReport(verb=Verb.EXPORT, outcome=Outcome.SUCCEEDED, run_uri="s3://b", artifacts=[artifact])
    assert RunReport.model_validate_json(encode(report)) == report


def scored(benchmarks: int, metrics: int) -> RunReport:
    """The report of an evaluation; the first metric of a benchmark is its primary metric."""
    results = [
        Result(benchmark=f"benchmark-{benchmark}", metric=f"metric-{metric}", value=0.5, samples=100)
        for benchmark in range(benchmarks)
        for metric in range(metrics)
    ]
    return RunReport(verb=Verb.EVALUATE, outcome=Outcome.SUCCEEDED, run_uri="s3://b/run", results=results)


def test_results_that_fit_are_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    report = scored(3, 3)
    assert fitted(report, {("benchmark-2", "metric-2")}) == report
    assert not caplog.records


@given(benchmarks=st.integers(5, 15), metrics=st.integers(15, 40), data=st.data())
def test_results_of_gates_and_primary_metrics_are_kept_first(
    benchmarks: int, metrics: int, data: st.DataObject
) -> None:
    report = scored(benchmarks, metrics)
    names = [(result.benchmark, result.metric) for result in report.results or []]
    gated = data.draw(st.sets(st.sampled_from(names), max_size=5))
    message, lines = logging.getLogger("tunesmith_runtime.report"), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    message.addHandler(handler)
    try:
        content = encode(fitted(report, gated))
    finally:
        message.removeHandler(handler)
    assert len(content) <= TERMINATION_MESSAGE_BYTES
    kept = [(result.benchmark, result.metric) for result in RunReport.model_validate_json(content).results or []]
    assert gated | {(f"benchmark-{number}", "metric-0") for number in range(benchmarks)} <= set(kept)
    assert len(kept) == len(set(kept))
    assert lines == [
        f"{len(names) - len(kept)} of {len(names)} scores do not fit into the report and are in s3://b/run/run.json only"
    ]


def test_a_gates_result_that_does_not_fit_is_a_failure() -> None:
    report = scored(60, 1)
    with pytest.raises(RunFailure, match=r"benchmark-\d+ metric-0, which a gate asks for, does not fit") as failure:
        fitted(report, {(result.benchmark, result.metric) for result in report.results or []})
    assert failure.value.failure is FailureClass.EVALUATION_FAILED


def test_secrets_are_in_neither_log_nor_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = tmp_path / "termination-log"
    monkeypatch.setenv("TUNESMITH_TERMINATION_LOG", str(message))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    monkeypatch.setenv("TUNESMITH_PROGRESS_TOKEN", "token-token")
    recent = start_logging()
    logging.getLogger("tunesmith_runtime").info("signing with hunter2hunter2 for token-token")
    write_report(failed(Verb.FETCH, RunFailure(FailureClass.STORAGE_403, "key hunter2hunter2"), recent.tail()))
    everything = message.read_text() + capsys.readouterr().out + recent.tail()
    assert "hunter2hunter2" not in everything
    assert "token-token" not in everything
    assert "signing with *** for ***" in everything


def test_the_report_is_the_termination_message_and_the_last_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "termination-log"
    monkeypatch.setenv("TUNESMITH_TERMINATION_LOG", str(path))
    write_report(failed(Verb.TRAIN, RunFailure(FailureClass.BAD_ROW, "line 17"), "x" * 5000))
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(path.read_text())["failure"]["message"] == json.loads(last)["failure"]["message"] == "line 17"
    assert len(last) <= LOGGED_REPORT_BYTES


@pytest.mark.parametrize("failure", list(FailureClass))
def test_every_failure_has_its_exit_code(failure: FailureClass) -> None:
    assert RunFailure(failure, "m").exit_code == (FAILURES[failure].exit_code or 1)


def test_not_found_takes_the_class_of_the_expected_object() -> None:
    failure = NotFound("s3://b/x").named(FailureClass.DATASET_NOT_FOUND, "data set")
    assert str(failure) == "DatasetNotFound: data set s3://b/x: nothing at s3://b/x"
