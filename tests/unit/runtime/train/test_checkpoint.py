"""Checkpoints are uploaded beside the training, one at a time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import Run, again, make_run, stop_after
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import LastCheckpoint
from tunesmith_api.run import Outcome, ProgressReport
from tunesmith_runtime import train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.train import reporting

ROWS = tinymodel.rows(64, seed=1)
SETTINGS: dict[str, Any] = {"epochs": 2, "globalBatchSize": 8}
WAIT_SECONDS = 30.0


@pytest.fixture(autouse=True)
def report_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "SECONDS_BETWEEN_REPORTS", 0.0)


def local_checkpoints(run: Run) -> list[str]:
    return sorted(path.name for path in (run.directory.local / "checkpoints").glob("checkpoint-*"))


class SlowStore:
    """Holds each upload of a checkpoint until training has come to a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hold: int) -> None:
        self.events: list[str] = []
        reached, upload = threading.Event(), RunDirectory.save_checkpoint

        def save(run: RunDirectory, folder: Path, step: int, *rest: Any) -> LastCheckpoint:
            reached.wait(WAIT_SECONDS)
            saved = upload(run, folder, step, *rest)
            self.events.append(f"uploaded {step}")
            return saved

        class Pusher(ProgressPusher):
            def push(pusher, report: ProgressReport) -> None:
                self.events.append(f"step {report.step}")
                if report.step == hold:
                    reached.set()

        monkeypatch.setattr(RunDirectory, "save_checkpoint", save)
        self.pusher = Pusher(None, None)


def test_training_goes_on_while_a_checkpoint_is_uploaded(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SlowStore(monkeypatch, hold=6)
    run = make_run(tmp_path, tiny, ROWS, SETTINGS, checkpoint={"everySteps": 4})
    report = train.run(run.spec, run.work, store.pusher)
    assert report.outcome is Outcome.SUCCEEDED
    assert store.events.index("step 6") < store.events.index("uploaded 4") < store.events.index("uploaded 8")
    assert local_checkpoints(run) == []


def test_a_run_that_is_stopped_during_an_upload_waits_for_it(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, tiny, ROWS, SETTINGS, checkpoint={"everySteps": 4})
    with stop_after(4, monkeypatch) as pusher:
        report = train.run(run.spec, run.work, pusher)
    assert report.outcome is Outcome.PREEMPTED
    assert report.last_checkpoint
    assert [step for step, _ in run.directory.checkpoints()] == [report.last_checkpoint.step, 4]
    resumed = again(run, tiny, ROWS, 2).do(train.run)
    assert resumed.resumed_from_step == report.last_checkpoint.step


def test_an_upload_that_fails_fails_the_run(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> LastCheckpoint:
        raise RunFailure(FailureClass.STORAGE_403, "no right to write")

    monkeypatch.setattr(RunDirectory, "save_checkpoint", refuse)
    run = make_run(tmp_path, tiny, ROWS, SETTINGS, checkpoint={"everySteps": 4})
    with pytest.raises(RunFailure, match="no right to write"):
        run.do(train.run)
