"""report.html: one page about a run, complete in itself, whatever names and settings hold."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import make_run
from tunesmith_api.finetunejob_status import DroppedRows, Metrics, Rows
from tunesmith_api.run import Outcome, RunSpec
from tunesmith_api.status import Artifact
from tunesmith_runtime import export, train
from tunesmith_runtime.export.report import figures, page, row_counts
from tunesmith_runtime.train.training_result import TrainingResult

VOID = {"meta", "br"}
ADAPTER = Artifact(name="adapter", uri="s3://runs/adapter-1", digest="ab")
RESULT = TrainingResult(artifact=ADAPTER, rows=Rows(kept=4), metrics=Metrics(steps=3), seeds={"training": 1})


class Page(HTMLParser):
    """The text of a page, and its elements; fails on elements that are not closed in order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.text, self.tags, self._open = "", set[str](), list[str]()
        self.links: list[str] = []
        self.feed(content)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_finished_run_has_a_page_and_a_picture_of_its_curves(tmp_path: Path, tiny: Path) -> None:
    run = make_run(
        tmp_path, tiny, tinymodel.rows(40, seed=1), {"maxSteps": 4, "epochs": 2}, validation={"fraction": 0.2}
    )
    trained = run.do(train.run)
    report = run.do(export.run)
    assert report.report_uri == f"{run.directory.uri}/report.html"
    content = Page((run.directory.read_bytes("report.html") or b"").decode())
    assert trained.metrics
    for expected in (
        "default/tiny",
        "learningRate",
        f"{trained.metrics.eval_loss:.4f}",
        "32",
        "merged",
        "transformers",
    ):
        assert expected in content.text
    assert "svg" in content.tags
    assert (run.directory.read_bytes("loss.png") or b"").startswith(b"\x89PNG")
    record = run.directory.finished()
    assert record
    assert record.report_uri == report.report_uri


def test_the_page_needs_no_network_and_runs_no_script(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, tinymodel.rows(16, seed=1), {"maxSteps": 2})
    run.do(train.run)
    run.do(export.run)
    content = Page((run.directory.read_bytes("report.html") or b"").decode())
    assert "script" not in content.tags
    assert [link for link in content.links if not link.startswith("#")] == []


def spec(**values: object) -> RunSpec:
    data = {"model": {"uri": "s3://models/x"}, "datasets": [{"uri": "s3://data/x.jsonl"}], **values}
    return RunSpec.model_validate(
        {
            "kind": "FineTuneJob", "name": "job", "namespace": "team", "uid": "u", "spec": data, "specHash": "h",
            "store": {"uri": "s3://runs"}, "models": {"base": {"uri": "s3://models/<b>x"}}, "outputUri": "s3://runs/x",
        }
    )  # fmt: skip


def test_settings_and_names_are_shown_as_text_whatever_they_hold() -> None:
    hostile = spec(rerun="</pre><script>alert(1)</script>")
    content = page(hostile, RESULT, [ADAPTER], None)
    assert "<script" not in content
    assert "</pre><script>alert(1)</script>" in Page(content).text
    assert "s3://models/<b>x" in Page(content).text


def test_the_page_shows_no_credentials() -> None:
    content = page(spec(storage={"credentialsSecret": "very-secret-name"}), RESULT, [], None)
    assert "very-secret-name" not in content


def test_figures_that_are_not_known_are_left_out() -> None:
    known = dict(
        figures(
            Metrics(steps=1200, tokens=3_600_000, train_seconds=1800, best_eval_loss=0.5, best_step=900), 4, "nvidia"
        )
    )
    assert known == {
        "Lowest validation loss": "0.5000 in step 900",
        "Steps": "1,200",
        "Tokens": "3,600,000",
        "Time": "0.50 h on 4 x nvidia",
        "Throughput": "2,000 tokens/s",
        "Device hours": "2.00",
    }  # fmt: skip


def test_rows_are_counted_by_what_became_of_them() -> None:
    rows = Rows(kept=1000, validation=50, dropped=[DroppedRows(reason="TooLong", count=3)])
    assert row_counts(rows) == [
        ("Trained on", "1,000"), ("Held out for validation", "50"), ("Dropped: TooLong", "3")
    ]  # fmt: skip


def test_a_run_succeeds_without_a_page_that_cannot_be_made(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no font")

    run = make_run(tmp_path, tiny, tinymodel.rows(16, seed=1), {"maxSteps": 2})
    run.do(train.run)
    monkeypatch.setattr("tunesmith_runtime.export.report.draw", broken)
    report = run.do(export.run)
    assert (report.outcome, report.report_uri) == (Outcome.SUCCEEDED, None)
    assert re.search("report.html cannot be made: ValueError: no font", caplog.text)
