"""The process of a tracker's client: what it answers, and what becomes of a run whose process has died."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.trackers.offline import attempts
from tunesmith_api.tracking import TrackerName, Tracking
from tunesmith_runtime.train.trackers import TRACKERS
from tunesmith_runtime.train.trackers.base import OpenClient, Point, RunState, TrackedRun, TrackerRefused
from tunesmith_runtime.train.trackers.client import answers
from tunesmith_runtime.train.trackers.client_process import ClientProcess
from tunesmith_runtime.train.trackers.naming import run_id, team_and_project

TRACKING = Tracking(to=TrackerName.WANDB, secret="tunesmith-key")
RUN = TrackedRun("s3://runs/demo/1", "support", "demo", {"method": "sft"}, {})
OPENING = {"tracking": TRACKING.to_dict(), "run": vars(RUN)}


class Recorder:
    """A client that records, and fails on request."""

    page = "https://wandb.example/run"

    def __init__(self, tracking: Tracking, run: TrackedRun, folder: Path) -> None:
        assert (tracking, run) == (TRACKING, RUN)
        self.points: list[Point] = []
        self.state: RunState | None = None

    def log(self, points: Sequence[Point]) -> None:
        self.points += points

    def finish(self, state: RunState) -> None:
        self.state = state


def conversation(open_client: OpenClient, *questions: Any) -> list[dict[str, Any]]:
    lines = io.StringIO("".join(f"{json.dumps(question)}\n" for question in questions))
    return list(answers(lines, open_client, Path("folder")))


def test_each_line_has_an_answer() -> None:
    opened: list[Recorder] = []

    def open_client(*arguments: Any) -> Recorder:
        opened.append(Recorder(*arguments))
        return opened[-1]

    points = [{"step": step, "time": 1.5, "values": {"train/loss": 0.5}} for step in range(3)]
    found = conversation(open_client, OPENING, {"points": points}, {"state": "interrupted"})
    assert found == [{"page": Recorder.page}, {}, {}]
    assert opened[0].points == [Point(step, 1.5, {"train/loss": 0.5}) for step in range(3)]
    assert opened[0].state is RunState.INTERRUPTED


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (TrackerRefused("401"), {"refused": "401"}),
        (OSError("down\nmore"), {"failed": "down"}),
        (KeyError(), {"failed": "KeyError"}),
        (RuntimeError(f"api_key={'0123456789abcdef' * 2}"), {"failed": "api_key=***"}),
    ],
)
def test_an_error_of_the_client_is_an_answer_without_credentials(error: Exception, answer: dict[str, str]) -> None:
    def open_client(*_: Any) -> Recorder:
        raise error

    assert conversation(open_client, OPENING, {"points": []}) == [answer]


def test_a_run_whose_training_was_killed_has_no_state() -> None:
    opened: list[Recorder] = []

    def open_client(*arguments: Any) -> Recorder:
        opened.append(Recorder(*arguments))
        return opened[-1]

    assert conversation(open_client, OPENING) == [{"page": Recorder.page}]
    assert opened[0].state is None


def test_a_process_that_has_died_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run = TRACKERS[TrackerName.WANDB].connect(TRACKING, RUN)
    assert isinstance(run, ClientProcess)
    run._process.kill()
    run._process.wait()
    run.log([Point(7, 1.5, {"train/loss": 0.5})])
    run.finish(RunState.FINISHED)
    last = attempts("wandb", tmp_path)[-1]
    assert (last.id, last.points, last.state) == (run_id(RUN), [[7, {"train/loss": 0.5}]], "finished")


def test_a_project_may_have_a_team() -> None:
    assert team_and_project("support") == (None, "support")
    assert team_and_project("my-team/support") == ("my-team", "support")
