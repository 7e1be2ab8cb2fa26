"""A tracker that is slow, unreachable or refuses delays no training, and gets what it can."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import pytest

from tunesmith_runtime.train.trackers import feed as feed_module
from tunesmith_runtime.train.trackers.base import Point, RunState, TrackerRefused
from tunesmith_runtime.train.trackers.feed import Feed


class Recorder:
    """A connection that records, and whose first requests fail."""

    page = "http://tracker/run"

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.attempts = failures, 0
        self.steps: list[int] = []
        self.states: list[RunState] = []

    def connect(self) -> Recorder:
        return self

    def log(self, points: Sequence[Point]) -> None:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise OSError("connection reset")
        self.steps += [point.step for point in points]

    def finish(self, state: RunState) -> None:
        self.states.append(state)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(feed_module, "CLOSE_SECONDS", 2.0)


def put(feed: Feed, count: int) -> None:
    for step in range(count):
        feed.put(Point(step, 0.0, {"loss": 1.0}))


def test_points_arrive_in_order_once_although_requests_fail(caplog: pytest.LogCaptureFixture) -> None:
    server = Recorder(failures=3)
    feed = Feed("mlflow", server.connect, batch=7)
    put(feed, 50)
    feed.close(RunState.FINISHED)
    assert server.steps == list(range(50))
    assert server.states[-1] is RunState.FINISHED
    assert feed.page == "http://tracker/run"
    assert caplog.text.count("mlflow is not reachable, and the training goes on: connection reset") == 1


def test_a_server_that_does_not_answer_delays_nothing_but_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed_module, "CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(feed_module, "CAPACITY", 10_000)
    answered = threading.Event()

    def connect() -> Recorder:
        answered.wait(30)
        raise OSError("timed out")

    feed = Feed("mlflow", connect, batch=100)
    started = time.monotonic()
    put(feed, 10_100)
    feed.close(RunState.FINISHED)
    assert time.monotonic() - started < 5
    assert "mlflow lacks 10100 points of this attempt; logs/metrics.jsonl" in caplog.text
    assert len(feed._points) == 10_000
    answered.set()


def test_a_refusal_ends_the_requests_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def connect() -> Recorder:
        calls.append(1)
        raise TrackerRefused("403 Forbidden")

    feed = Feed("mlflow", connect, batch=100)
    put(feed, 5)
    time.sleep(0.1)
    feed.close(RunState.FINISHED)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert (len(calls), warnings[0]) == (1, "mlflow gets no metrics of this attempt: 403 Forbidden")


def test_a_run_that_failed_is_shown_as_failed() -> None:
    server = Recorder()
    feed = Feed("mlflow", server.connect, batch=1)
    feed.close(RunState.FAILED)
    assert server.states[-1] is RunState.FAILED
