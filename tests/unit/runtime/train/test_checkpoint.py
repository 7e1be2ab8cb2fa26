"""Checkpoints are uploaded beside the training, one at a time."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import tinymodel
from tests.servers import free_port
from tests.unit.runtime.train.support import Run, again, make_run, stop_after
from tests.unit.runtime.train.worlds import CONTEXT, PATIENCE
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob_status import LastCheckpoint
from tunesmith_api.pods import Accelerator
from tunesmith_api.run import INDEX_VARIABLE, Outcome, ProgressReport, World
from tunesmith_api.training import Checkpointing
from tunesmith_runtime import train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rank import PROCESS_VARIABLE, Rank
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


def test_a_pod_removes_its_files_when_all_its_processes_have_given_theirs(tiny: Path, tmp_path: Path) -> None:
    run, world = make_run(tmp_path, tiny, ROWS), World(nodes=2, processes=2, port=free_port())
    ranks = [Rank(pod, process) for pod in range(2) for process in range(2)]
    processes = [CONTEXT.Process(target=save_late, args=(run, world, rank, tmp_path)) for rank in ranks]
    for each in processes:
        each.start()
    for each in processes:
        each.join(PATIENCE)
    assert [each.exitcode for each in processes] == [0] * 4
    assert [*tmp_path.glob("pod-*/*")] == []
    run.directory.fetch_checkpoint(5, tmp_path / "saved")
    saved = [(tmp_path / "saved" / f"rng_state_{number}.pth").read_text() for number in range(4)]
    assert saved == [f"state of {number}" for number in range(4)]


def save_late(run: Run, world: World, own: Rank, folder: Path) -> None:
    """In a process: save its random state as the Trainer does, in the last process long after the others, then the checkpoint."""
    from tunesmith_runtime.train.checkpoint import Checkpoints
    from tunesmith_runtime.train.world.rendezvous import join

    os.environ |= {INDEX_VARIABLE: str(own.pod), PROCESS_VARIABLE: str(own.process), "GLOO_SOCKET_IFNAME": "lo"}
    group = join(world, Accelerator.CPU, lambda: False)
    with group.serving_store():
        if group.rank == world.size - 1:
            time.sleep(1)
        pod = folder / f"pod-{own.pod}"
        (pod / "checkpoint-5").mkdir(parents=True, exist_ok=True)
        (pod / "checkpoint-5" / f"rng_state_{group.rank}.pth").write_text(f"state of {group.rank}")
        checkpoints = Checkpoints(run.directory, Checkpointing(), None, 0, group)
        state: Any = SimpleNamespace(global_step=5)
        checkpoints.on_save(SimpleNamespace(output_dir=pod), state, SimpleNamespace())  # type: ignore[arg-type]
        checkpoints.wait()
