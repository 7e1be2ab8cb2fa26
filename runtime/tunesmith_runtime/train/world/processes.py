"""Several devices in one pod: the verb train starts a process for each device and combines their reports."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunesmith_api.failures import SECONDARY_RANK, FailureClass
from tunesmith_api.run import FailureReport, Outcome, RunReport, RunSpec, Verb
from tunesmith_api.symptoms import SIGNALS
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.rank import PROCESS_VARIABLE
from tunesmith_runtime.report import TERMINATION_LOG_VARIABLE
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0
"""Time after the failure of a process until the remaining processes are killed."""


@dataclass(frozen=True)
class ExitedProcess:
    """A process that has exited."""

    number: int
    code: int
    report: RunReport | None

    @property
    def failure(self) -> FailureReport:
        """The cause of its failure."""
        if self.report and self.report.failure:
            return self.report.failure
        if (self.report and self.report.outcome is Outcome.PREEMPTED) or self.code == -signal.SIGTERM:
            return FailureReport(class_=FailureClass.PREEMPTED, message="it received SIGTERM")
        name, hint = SIGNALS.get(128 - self.code, ("sent from outside the process", None))
        cause = f"was killed by signal {-self.code}, {name}," if self.code < 0 else f"exited with code {self.code}"
        message = f"process {self.number} of this pod {cause} and left no report"
        return FailureReport(class_=FailureClass.PROCESS_ERROR, message=message, hint=hint)


def launch(spec: RunSpec, work: Work, count: int) -> RunReport:
    """Run `count` processes of the verb train and return the report of process 0, or of a preempted process.

    Raises RunFailure with the report of the process whose failure is the root cause.
    """
    folder = work.root / "processes"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec_file = folder / "run.json"
    spec_file.write_text(json.dumps(spec.to_dict()))
    children = [_start(number, spec_file, work, folder) for number in range(count)]
    with _forwarding_sigterm(children):
        exited = _wait(children, folder)
    cause = root_cause(exited)
    if cause is None:
        report = _report(folder, 0)
        if report is None:
            raise RunFailure(FailureClass.PROCESS_ERROR, "process 0 of this pod exited with code 0 and left no report")
        return report
    reports = (process.report for process in exited if process.report)
    preempted = next((report for report in reports if report.outcome is Outcome.PREEMPTED), None)
    if cause.failure.class_ is FailureClass.PREEMPTED and preempted:
        return preempted
    log.error("process %d of this pod failed; the end of its log:\n%s", cause.number, cause.failure.log_tail or "-")
    raise RunFailure(cause.failure.class_, cause.failure.message, cause.failure.hint)


def root_cause(exited: Sequence[ExitedProcess]) -> ExitedProcess | None:
    """Return the first failed process, in the order of their exits; secondary failures rank last. None if no process
    failed."""
    failed = (process for process in exited if process.code)
    return min(failed, key=lambda process: SECONDARY_RANK.get(process.failure.class_, 0), default=None)


def _start(number: int, spec_file: Path, work: Work, folder: Path) -> subprocess.Popen[bytes]:
    command: list[str | Path] = [sys.executable, "-m", "tunesmith_runtime", Verb.TRAIN]
    command += ["--spec", spec_file, "--work", work.root]
    variables = {PROCESS_VARIABLE: str(number), TERMINATION_LOG_VARIABLE: str(_report_file(folder, number))}
    return subprocess.Popen(command, env={**os.environ, **variables})


@contextmanager
def _forwarding_sigterm(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Within the block, forward SIGTERM to every process: they save their state and exit together."""

    def forward(*_: Any) -> None:
        for child in children:
            child.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        for child in children:
            child.kill()
            child.wait()


def _wait(children: Sequence[subprocess.Popen[bytes]], folder: Path) -> list[ExitedProcess]:
    """Wait for all processes and return them in the order of their exits. Kill those that remain long after a failure."""
    exited: dict[int, ExitedProcess] = {}
    deadline = None
    while len(exited) < len(children):
        for number, child in enumerate(children):
            if number not in exited and (code := child.poll()) is not None:
                exited[number] = ExitedProcess(number, code, _report(folder, number))
        if deadline is None and any(process.code for process in exited.values()):
            deadline = time.monotonic() + GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            for number in set(range(len(children))) - set(exited):
                children[number].kill()
        time.sleep(POLL_SECONDS)
    return list(exited.values())


def _report_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.json"


def _report(folder: Path, number: int) -> RunReport | None:
    """Read the report of a process; None if it left no valid report."""
    try:
        return RunReport.model_validate_json(_report_file(folder, number).read_bytes())
    except (OSError, ValidationError):
        return None
