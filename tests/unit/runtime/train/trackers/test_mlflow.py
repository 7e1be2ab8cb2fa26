"""Metrics reach MLflow: one run for all attempts, its parameters and points, and its state at the end."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tests.unit.runtime.train.trackers.servers import Api, mlflow_api, real_mlflow
from tunesmith_api.run import Outcome, ProgressReport
from tunesmith_api.tracking import CREDENTIALS, TrackerName, Tracking
from tunesmith_runtime import train
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.train.trackers.base import Point, RunState, TrackedRun, TrackerRefused
from tunesmith_runtime.train.trackers.mlflow import MlflowRun
from tunesmith_runtime.train.tracking import flattened, is_number

ROWS = tinymodel.rows(32)
SETTINGS: dict[str, Any] = {"maxSteps": 6, "epochs": None, "globalBatchSize": 8, "precision": "fp32"}
RUN = TrackedRun("s3://runs/demo/1", "support", "demo", {"method": "sft"}, {"tunesmith.namespace": "demo"})


@pytest.fixture
def api() -> Iterator[Api]:
    with mlflow_api() as found:
        yield found


def tracked(folder: Path, model: Path, url: str, **tracking: Any) -> Run:
    settings = {name: value for name, value in SETTINGS.items() if value is not None}
    return make_run(folder, model, ROWS, settings, tracking={"to": "mlflow", "url": url, **tracking})


def connect(url: str) -> MlflowRun:
    return MlflowRun(Tracking(to=TrackerName.MLFLOW, url=url), RUN)


def test_a_resumed_training_continues_its_run(
    api: Api, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, report = stop_and_resume(tracked(tmp_path, tiny, api.url), tiny, ROWS, 3, monkeypatch)
    assert report.outcome is Outcome.SUCCEEDED
    ((identifier, held),) = api.runs.items()
    assert held["states"] == ["RUNNING", "SCHEDULED", "RUNNING", "FINISHED"]
    assert api.steps(identifier, "train/loss") == [1, 2, 3, 4, 5, 6]
    logged = {entry["step"]: entry["loss"] for entry in run.log_history()}
    assert {point["step"]: point["value"] for point in held["metrics"] if point["key"] == "train/loss"} == logged
    assert (held["name"], api.experiments) == ("tiny", {"default": "1"})
    assert held["tags"]["tunesmith.run"] == run.directory.uri
    assert held["params"] | {"training.maxSteps": "6", "datasets.0.uri": "s3://data/train.jsonl"} == held["params"]
    assert "tracking.url" not in held["params"]
    assert report.tracking_url == f"{api.url}/#/experiments/1/runs/{identifier}"


def test_the_page_of_the_run_is_in_the_progress(
    api: Api, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str | None] = []

    class Recorded(ProgressPusher):
        def push(self, report: ProgressReport) -> None:
            pages.append(report.tracking_url)

    monkeypatch.setattr("tunesmith_runtime.train.reporting.SECONDS_BETWEEN_REPORTS", 0.0)
    run = tracked(tmp_path, tiny, api.url, experiment="words")
    train.run(run.spec, run.work, Recorded(None, None))
    assert pages[-1] == f"{api.url}/#/experiments/1/runs/run-1"
    assert api.experiments == {"words": "1"}


def test_a_server_that_refuses_the_run_does_not_end_the_training(
    api: Api, tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.failure = 403
    report = (run := tracked(tmp_path, tiny, api.url)).do(train.run)
    assert (report.outcome, report.tracking_url) == (Outcome.SUCCEEDED, None)
    assert len(run.log_history()) == 6
    assert len(api.requests) == 1
    assert "mlflow gets no metrics of this attempt: experiments/get-by-name: 403 Forbidden not allowed" in caplog.text


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TOKEN": "t0ken"}, "Bearer t0ken"),
        ({"USERNAME": "ann", "PASSWORD": "pass"}, f"Basic {base64.b64encode(b'ann:pass').decode()}"),
        ({}, None),
    ],
)
def test_credentials_are_those_of_the_secret(
    variables: dict[str, str], expected: str | None, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CREDENTIALS[TrackerName.MLFLOW]:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    connect(api.url)
    assert {headers.get("Authorization") for _, _, headers in api.requests} == {expected}


@pytest.mark.parametrize(
    ("status", "error"), [(500, OSError), (429, OSError), (401, TrackerRefused), (302, TrackerRefused)]
)
def test_a_redirection_or_refusal_is_final_and_a_fault_of_the_server_is_not(
    status: int, error: type[Exception], api: Api
) -> None:
    api.failure = status
    with pytest.raises(error, match=str(status)):
        connect(api.url)
    assert len(api.requests) == 1


def test_many_points_are_sent_in_requests_of_a_thousand_metrics(api: Api) -> None:
    run = connect(f"{api.url}/")
    run.log([Point(step, 1.5, {f"train/{number}": 0.5 for number in range(30)}) for step in range(100)])
    run.finish(RunState.FAILED)
    assert len(api.runs["run-1"]["metrics"]) == 3000
    assert api.runs["run-1"]["metrics"][0] == {"key": "train/0", "value": 0.5, "timestamp": 1500, "step": 0}
    assert api.runs["run-1"]["states"] == ["RUNNING", "FAILED"]


def test_only_finite_numbers_are_points() -> None:
    assert [is_number(value) for value in (1, 0.5, float("nan"), float("inf"), "1", None)] == [True, True] + 4 * [False]


def test_parameters_are_named_by_their_path_in_the_spec() -> None:
    spec = {"training": {"packing": True, "epochs": 2}, "datasets": [{"uri": "s3://a"}, {"uri": "s3://b"}]}
    assert flattened(spec) == {
        "training.packing": "true", "training.epochs": "2", "datasets.0.uri": "s3://a", "datasets.1.uri": "s3://b",
    }  # fmt: skip


@pytest.mark.deep
def test_the_real_server_shows_the_run(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with real_mlflow(tmp_path) as url:
        run, report = stop_and_resume(tracked(tmp_path / "run", tiny, url), tiny, ROWS, 3, monkeypatch)
        assert report.tracking_url is not None
        identifier = report.tracking_url.rsplit("/", 1)[1]

        def get(path: str) -> Any:
            with urllib.request.urlopen(f"{url}/api/2.0/mlflow/{path}") as answer:
                return json.loads(answer.read())

        found = get(f"runs/get?run_id={identifier}")["run"]
        history = get(f"metrics/get-history?run_id={identifier}&metric_key=train/loss")["metrics"]
    assert found["info"]["status"] == "FINISHED"
    assert found["info"]["run_name"] == "tiny"
    logged = {entry["step"]: entry["loss"] for entry in run.log_history()}
    assert {point["step"]: point["value"] for point in history} == pytest.approx(logged)
    assert {each["key"]: each["value"] for each in found["data"]["params"]}["training.maxSteps"] == "6"
