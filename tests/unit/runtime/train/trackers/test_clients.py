"""Metrics reach W&B and SwanLab by their own clients, whose files of offline runs are read back."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tests.unit.runtime.train.trackers.offline import attempts
from tunesmith_api.run import Outcome
from tunesmith_api.tracking import CREDENTIALS, TrackerName, Tracking
from tunesmith_runtime import train
from tunesmith_runtime.train.trackers import TRACKERS
from tunesmith_runtime.train.trackers import client_process as process_module
from tunesmith_runtime.train.trackers import feed as feed_module
from tunesmith_runtime.train.trackers.base import Connection, Point, RunState, TrackedRun, TrackerRefused
from tunesmith_runtime.train.trackers.naming import run_id

ROWS = tinymodel.rows(32)
SETTINGS: dict[str, Any] = {"maxSteps": 6, "globalBatchSize": 8, "precision": "fp32"}
RUN = TrackedRun("s3://runs/demo/1", "support", "demo", {"method": "sft"}, {"tunesmith.namespace": "demo"})
KEY = "0123456789abcdef" * 3
FOLDERS = {TrackerName.WANDB: "WANDB_DIR", TrackerName.SWANLAB: "SWANLAB_LOG_DIR"}
MODES = {TrackerName.WANDB: "WANDB_MODE", TrackerName.SWANLAB: "SWANLAB_MODE"}
STATES = {
    TrackerName.WANDB: {
        RunState.FINISHED: "finished",
        RunState.INTERRUPTED: "preempted",
        RunState.FAILED: "failed",
    },
    TrackerName.SWANLAB: {
        RunState.FINISHED: "finished",
        RunState.INTERRUPTED: "aborted",
        RunState.FAILED: "crashed",
    },
}
clients = pytest.mark.parametrize("tracker", FOLDERS)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in CREDENTIALS.values():
        for name in names:
            monkeypatch.setenv(name, KEY)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that offline runs are written to."""
    folder = tmp_path / "offline"
    folder.mkdir()
    monkeypatch.setattr(feed_module, "CLOSE_SECONDS", 120.0)  # a busy machine imports for long
    monkeypatch.setattr(process_module, "FINISH_SECONDS", 60.0)
    for tracker, name in FOLDERS.items():
        monkeypatch.setenv(name, str(folder))
        monkeypatch.setenv(MODES[tracker], "offline")
    return folder


def tracked(folder: Path, model: Path, tracker: TrackerName, **tracking: Any) -> Run:
    return make_run(folder, model, ROWS, SETTINGS, tracking={"to": tracker, "secret": "tunesmith-key", **tracking})


def connect(tracker: TrackerName, url: str | None = None, run: TrackedRun = RUN) -> Connection:
    return TRACKERS[tracker].connect(Tracking(to=tracker, url=url, secret="tunesmith-key"), run)


@clients
def test_a_resumed_training_continues_its_run(
    tracker: TrackerName,
    offline: Path,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run, report = stop_and_resume(tracked(tmp_path / "run", tiny, tracker), tiny, ROWS, 3, monkeypatch)
    assert report.outcome is Outcome.SUCCEEDED
    assert report.tracking_url is None  # an offline run has no page
    first, second = attempts(tracker, offline)
    assert first.id == second.id == run_id(replace(RUN, identity=run.directory.uri))
    assert [each.state for each in (first, second)] == [
        STATES[tracker][RunState.INTERRUPTED],
        STATES[tracker][RunState.FINISHED],
    ]
    logged = {entry["step"]: entry["loss"] for entry in run.log_history()}
    assert [*first.steps("train/loss"), *second.steps("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert first.steps("train/loss") | second.steps("train/loss") == pytest.approx(logged)
    for attempt in (first, second):
        assert (attempt.name, attempt.project) == ("tiny", "default")
        expected = {
            "training.maxSteps": "6",
            "datasets.0.uri": "s3://data/train.jsonl",
            "tunesmith.namespace": "default",
        }
        assert attempt.config | expected == attempt.config
        assert "tracking.url" not in attempt.config
    output = capfd.readouterr()
    assert KEY not in output.out + output.err
    assert not [path for path in offline.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert not [*offline.rglob("requirements.txt")]


@clients
def test_points_of_a_run_that_failed_are_recorded_as_they_are_and_no_process_is_left(
    tracker: TrackerName, offline: Path
) -> None:
    points = [Point(step, 1.5, {f"train/{number}": 0.5 * step for number in range(30)}) for step in range(1, 101)]
    before = {each.pid for each in psutil.process_iter()}
    run = connect(tracker, run=replace(RUN, experiment="team/demo"))
    run.log(points[:60])
    run.log(points[60:])
    started = [each for each in psutil.process_iter() if each.pid not in before and tracker in " ".join(each.cmdline())]
    assert started
    run.finish(RunState.FAILED)
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
    (attempt,) = attempts(tracker, offline)
    assert attempt.state == STATES[tracker][RunState.FAILED]
    assert (attempt.team, attempt.project, attempt.name) == ("team", "demo", "support")
    for number in range(30):
        assert attempt.steps(f"train/{number}") == {point.step: 0.5 * point.step for point in points}


@clients
def test_a_server_that_is_down_does_not_end_the_training(
    tracker: TrackerName, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed_module, "CLOSE_SECONDS", 0.5)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        run = tracked(tmp_path / "run", tiny, tracker, url=url)
        report = run.do(train.run)
    assert (report.outcome, report.tracking_url) == (Outcome.SUCCEEDED, None)
    assert len(run.log_history()) == 6
    assert f"{tracker} lacks " in caplog.text


@contextmanager
def server(status: int, location: str = "") -> Iterator[tuple[str, list[str | None]]]:
    """A server that answers every request with a status code: its port, and the credentials of requests."""
    credentials: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            credentials.append(self.headers["Authorization"])
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            body = json.dumps({"error": "no such key", "message": "no such key"}).encode()
            self.send_response(status)
            if location:
                self.send_header("Location", location + self.path)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield str(httpd.server_address[1]), credentials
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@clients
def test_a_refused_key_is_final_and_is_not_sent_to_another_server(tracker: TrackerName) -> None:
    with (
        server(401) as (port, received),
        server(307, f"http://localhost:{port}") as (first, sent),
        pytest.raises(TrackerRefused) as refused,
    ):
        connect(tracker, f"http://127.0.0.1:{first}")
    assert KEY not in str(refused.value)
    assert sent[0]
    assert {*received} == {None}
