"""A process for each device of a pod, and a single report."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.support import make_run
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import FailureReport, Outcome, RunReport, Verb
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.world import processes
from tunesmith_runtime.train.world.processes import ExitedProcess, launch, root_cause

SUCCEEDED = RunReport(verb=Verb.TRAIN, outcome=Outcome.SUCCEEDED, run_uri="file:///run")
STOPPED = RunReport(verb=Verb.TRAIN, outcome=Outcome.PREEMPTED)


def failed(class_: FailureClass) -> RunReport:
    return RunReport(
        verb=Verb.TRAIN, outcome=Outcome.FAILED, failure=FailureReport(class_=class_, message=f"it is {class_}")
    )


@pytest.mark.parametrize(
    ("ended", "cause"),
    [
        ([(0, SUCCEEDED), (0, SUCCEEDED)], None),
        ([(86, failed(FailureClass.COLLECTIVE_FAILED)), (85, failed(FailureClass.DIVERGED))], FailureClass.DIVERGED),
        ([(86, failed(FailureClass.COLLECTIVE_FAILED)), (-9, None)], FailureClass.PROCESS_ERROR),
        ([(-15, None), (86, failed(FailureClass.COLLECTIVE_FAILED))], FailureClass.PREEMPTED),
        ([(75, STOPPED), (75, STOPPED)], FailureClass.PREEMPTED),
        ([(1, None), (75, STOPPED)], FailureClass.PROCESS_ERROR),
        ([(75, STOPPED), (1, None)], FailureClass.PREEMPTED),
    ],
)
def test_the_first_primary_failure_is_the_root_cause(
    ended: list[tuple[int, RunReport | None]], cause: FailureClass | None
) -> None:
    failed = root_cause([ExitedProcess(number, code, report) for number, (code, report) in enumerate(ended)])
    assert (failed.failure.class_ if failed else None) == cause


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Launch processes that run a program; it knows its `number` and the `report` file."""
    run = make_run(tmp_path, tmp_path, [])

    def start(program: str, count: int = 2) -> RunReport:
        shim = tmp_path / "python"
        shim.write_text(
            f"#!{sys.executable}\nimport os, sys, time, signal\n"
            "number, report = os.environ['TUNESMITH_PROCESS'], os.environ['TUNESMITH_TERMINATION_LOG']\n"
            f"{program}\n"
        )
        shim.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(shim))
        monkeypatch.setattr(processes, "POLL_SECONDS", 0.02)
        return launch(run.spec, run.work, count)

    return start


def write_code(report: RunReport) -> str:
    return f"open(report, 'w').write({json.dumps(report.to_dict())!r})"


def test_the_report_of_process_0_is_the_report_of_the_pod(pod: Any) -> None:
    assert pod(f"if number == '0':\n    {write_code(SUCCEEDED)}") == SUCCEEDED


def test_the_report_of_a_failed_process_is_the_failure_of_the_pod(pod: Any) -> None:
    program = f"if number == '1':\n    {write_code(failed(FailureClass.DIVERGED))}\n    sys.exit(85)\ntime.sleep(0.3)\nsys.exit(86)"
    with pytest.raises(RunFailure, match="it is Diverged") as failure:
        pod(program)
    assert failure.value.failure is FailureClass.DIVERGED


def test_processes_that_outlive_a_failed_process_are_killed(pod: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    with pytest.raises(RunFailure, match="process 1 of this pod was killed by signal 9, sent from outside the process"):
        pod("if number == '1':\n    os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(600)")


def test_a_bus_error_leads_to_the_shared_memory_setting(pod: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    with pytest.raises(RunFailure, match="a bus error") as failure:
        pod("if number == '0':\n    os.kill(os.getpid(), signal.SIGBUS)\ntime.sleep(600)")
    assert "sharedMemory" in str(failure.value.hint)


def test_sigterm_reaches_every_process_and_the_pod_is_preempted(pod: Any) -> None:
    program = (
        f"def stop(*_):\n    {write_code(STOPPED)}\n    os._exit(75)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "if number == '1':\n    time.sleep(0.5)\n    os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(600)"
    )
    before = signal.getsignal(signal.SIGTERM)
    assert pod(program) == STOPPED
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_process_is_left_behind(pod: Any, tmp_path: Path) -> None:
    with pytest.raises(RunFailure, match="left no report"):
        pod(f"open({str(tmp_path)!r} + '/pid-' + number, 'w').write(str(os.getpid()))")
    for number in (0, 1):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / f"pid-{number}").read_text()), 0)
