"""A run that resumes in another pod ends bit for bit like an uninterrupted run (CPU)."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import Run, again, make_run, terminate_when
from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_api.run import Outcome, ProgressReport, RunReport
from tunesmith_runtime import train
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.train import reporting

ROWS = tinymodel.rows(90, seed=1)
STEPS_PER_EPOCH = 6  # the last batch of an epoch is smaller
SETTINGS: dict[str, Any] = {"epochs": 3, "microBatchSize": 8}
LORA: dict[str, Any] = {"tuner": "lora", "lora": {"dropout": 0.1}}
VALIDATED = LORA | {"validation": {"fraction": 0.1}}
TUNERS: dict[str, dict[str, Any]] = {"lora": LORA, "validated": VALIDATED, "full": {"tuner": "full"}}


class Crash(Exception):
    """A node loses power."""


class ActAt(ProgressPusher):
    """Calls `act` when the progress of `step` is reported."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        super().__init__(None, None)
        self._step, self._act = step, act

    def push(self, report: ProgressReport) -> None:
        if report.step == self._step:
            self._act()


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def crash() -> None:
    raise Crash


@pytest.fixture(autouse=True)
def report_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "SECONDS_BETWEEN_REPORTS", 0.0)


@pytest.fixture(scope="module")
def uninterrupted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Run, RunReport]]:
    """An uninterrupted run of each tuner."""
    runs = {
        name: make_run(tmp_path_factory.mktemp(name), tiny, ROWS, SETTINGS, **spec) for name, spec in TUNERS.items()
    }
    return {name: (run, run.do(train.run)) for name, run in runs.items()}


def curve(run: Run) -> list[tuple[int, float, float]]:
    return [(entry["step"], entry["loss"], entry["grad_norm"]) for entry in run.log_history()]


def validation_curve(run: Run) -> list[tuple[int, float]]:
    return [(entry["step"], entry["eval_loss"]) for entry in run.log_history("eval_loss")]


def assert_equal(run: Run, report: RunReport, whole: tuple[Run, RunReport]) -> None:
    """Losses, gradient norms and the bytes of the artifact equal those of the uninterrupted run."""
    other, expected = whole
    assert curve(run) == curve(other)
    assert validation_curve(run) == validation_curve(other)
    assert report.artifacts
    assert expected.artifacts
    assert report.artifacts[0].digest == expected.artifacts[0].digest
    assert report.metrics
    assert expected.metrics
    assert (report.metrics.steps, report.metrics.tokens) == (expected.metrics.steps, expected.metrics.tokens)


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_run_stopped_within_and_at_the_end_of_an_epoch_resumes_exactly(
    uninterrupted: dict[str, tuple[Run, RunReport]], tuner: str, tiny: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path, tiny, ROWS, SETTINGS, **TUNERS[tuner])
    stopped_at = []
    for attempt, step in enumerate((2, 2 * STEPS_PER_EPOCH - 1), start=2):
        report = train.run(run.spec, run.work, ActAt(step, sigterm))
        assert report.outcome is Outcome.PREEMPTED
        assert report.last_checkpoint
        stopped_at.append(report.last_checkpoint.step)
        kept = run.directory.checkpoints()
        assert len({step for step, _ in kept}) == len(kept)
        assert kept[0] == (report.last_checkpoint.step, report.last_checkpoint.uri)
        run = again(run, tiny, ROWS, attempt)
    report = run.do(train.run)
    assert stopped_at == [3, 2 * STEPS_PER_EPOCH]
    assert report.resumed_from_step == 2 * STEPS_PER_EPOCH
    assert_equal(run, report, uninterrupted[tuner])


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_crashed_run_resumes_exactly_from_the_last_checkpoint(
    uninterrupted: dict[str, tuple[Run, RunReport]], tuner: str, tiny: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path, tiny, ROWS, SETTINGS, checkpoint={"everySteps": 4, "keep": 1}, **TUNERS[tuner])
    with pytest.raises(Crash):
        train.run(run.spec, run.work, ActAt(10, crash))
    assert [step for step, _ in run.directory.checkpoints()] == [8]
    run = again(run, tiny, ROWS, 2)
    report = run.do(train.run)
    assert report.resumed_from_step == 8
    assert_equal(run, report, uninterrupted[tuner])


def test_a_resumed_run_repeats_an_evaluation_lost_in_a_crash(
    uninterrupted: dict[str, tuple[Run, RunReport]], tiny: Path, tmp_path: Path
) -> None:
    """The checkpoint of an epoch's last step is written before the evaluation of that epoch."""
    checkpoint = {"everySteps": STEPS_PER_EPOCH, "keep": 1}
    run = make_run(tmp_path, tiny, ROWS, SETTINGS, checkpoint=checkpoint, **VALIDATED)
    with pytest.raises(Crash):
        train.run(run.spec, run.work, ActAt(STEPS_PER_EPOCH + 2, crash))
    run = again(run, tiny, ROWS, 2)
    report = run.do(train.run)
    assert report.resumed_from_step == STEPS_PER_EPOCH
    assert_equal(run, report, uninterrupted["validated"])


@pytest.mark.parametrize("settings", [SETTINGS, SETTINGS | {"maxSteps": STEPS_PER_EPOCH + 2}])
def test_a_run_stopped_in_its_last_evaluation_only_repeats_that(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    from tunesmith_runtime.train.trainers.base import RunMixin

    whole = make_run(tmp_path / "whole", tiny, ROWS, settings, **VALIDATED)
    expected = whole.do(train.run)
    assert expected.metrics
    last = expected.metrics.steps

    def stopped(trainer: RunMixin, *arguments: Any, **options: Any) -> Any:
        if trainer.state.global_step == last:
            sigterm()
        return super(RunMixin, trainer).prediction_step(*arguments, **options)

    run = make_run(tmp_path / "stopped", tiny, ROWS, settings, **VALIDATED)
    with monkeypatch.context() as patched:
        patched.setattr(RunMixin, "prediction_step", stopped)
        for attempt in (2, 3):
            report = run.do(train.run)
            assert report.outcome is Outcome.PREEMPTED
            assert [step for step, _ in run.directory.checkpoints()] == [last]
            run = again(run, tiny, ROWS, attempt)
    report = run.do(train.run)
    assert report.resumed_from_step == last
    assert_equal(run, report, (whole, expected))


def test_a_run_stopped_after_its_last_step_succeeds(
    uninterrupted: dict[str, tuple[Run, RunReport]], tiny: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path, tiny, ROWS, SETTINGS, **LORA)
    report = train.run(run.spec, run.work, ActAt(3 * STEPS_PER_EPOCH, sigterm))
    assert report.outcome is Outcome.SUCCEEDED
    assert_equal(run, report, uninterrupted["lora"])


def test_sigterm_saves_a_checkpoint_and_exits_as_preempted(
    uninterrupted: dict[str, tuple[Run, RunReport]], tiny: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path, tiny, ROWS, SETTINGS, **TUNERS["lora"])
    process = run.start("train", OMP_NUM_THREADS="1", PYTHONHASHSEED="7")
    printed = terminate_when(process, "step 1/")
    assert process.returncode == FAILURES[FailureClass.PREEMPTED].exit_code, printed
    report = RunReport.model_validate_json(printed.splitlines()[-1])
    assert report.outcome is Outcome.PREEMPTED
    assert report.last_checkpoint
    run = again(run, tiny, ROWS, 2)
    resumed = run.do(train.run)
    assert resumed.resumed_from_step == report.last_checkpoint.step
    assert_equal(run, resumed, uninterrupted["lora"])


def test_a_checkpoint_has_no_pickled_arguments_and_records_the_elapsed_time(tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, tiny, ROWS, SETTINGS, checkpoint={"everySteps": 4})
    with pytest.raises(Crash):
        train.run(run.spec, run.work, ActAt(5, crash))
    ((step, uri),) = run.directory.checkpoints()
    names = {entry.path for entry in run.directory.storage.list(uri)}
    assert step == 4
    assert {"trainer_state.json", "optimizer.pt", "elapsed.json", "adapter_model.safetensors"} <= names
    assert "training_args.bin" not in names
    elapsed = json.loads(run.directory.storage.read_bytes(f"{uri}/elapsed.json") or b"{}")
    assert elapsed["seconds"] > 0
    assert not list((run.work.run / "checkpoints").iterdir())
