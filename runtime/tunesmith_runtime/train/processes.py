"""Several devices in one pod: the verb train starts itself once for each, and speaks for all of them."""

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

from tunesmith_api.failures import AFTERMATH, FailureClass
from tunesmith_api.run import FailureReport, Outcome, RunReport, RunSpec, Verb
from tunesmith_api.symptoms import SIGNALS
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.rank import PROCESS_VARIABLE
from tunesmith_runtime.report import TERMINATION_LOG_VARIABLE
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
PATIENCE_WITH_SURVIVORS = 30.0
"""Seconds that processes have to notice that another has ended badly, before they are ended too."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    number: int
    code: int
    report: RunReport | None

    @property
    def failure(self) -> FailureReport:
        """Why it failed."""
        if self.report and self.report.failure:
            return self.report.failure
        if (self.report and self.report.outcome is Outcome.PREEMPTED) or self.code == -signal.SIGTERM:
            return FailureReport(class_=FailureClass.PREEMPTED, message="it was asked to stop")
        name, hint = SIGNALS.get(128 - self.code, ("one from outside", None))
        how = f"was ended by signal {-self.code}, {name}," if self.code < 0 else f"exited with code {self.code}"
        message = f"process {self.number} of this pod {how} and left no report"
        return FailureReport(class_=FailureClass.PROCESS_ERROR, message=message, hint=hint)


def launch(spec: RunSpec, work: Work, count: int) -> RunReport:
    """Run `count` processes of the verb train; the report of the first, or why the first of them failed.

    Raises RunFailure with what the process that failed has told.
    """
    folder = work.root / "processes"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec_file = folder / "run.json"
    spec_file.write_text(json.dumps(spec.to_dict()))
    children = [_start(number, spec_file, work, folder) for number in range(count)]
    with _passing_on_sigterm(children):
        ended = _wait(children, folder)
    first = first_cause(ended)
    if first is None:
        report = _report(folder, 0)
        if report is None:
            raise RunFailure(FailureClass.PROCESS_ERROR, "process 0 of this pod ended well and left no report")
        return report
    preempted = next((one.report for one in ended if one.report and one.report.outcome is Outcome.PREEMPTED), None)
    if first.failure.class_ is FailureClass.PREEMPTED and preempted:
        return preempted
    log.error("process %d of this pod failed; the end of its log:\n%s", first.number, first.failure.log_tail or "-")
    raise RunFailure(first.failure.class_, first.failure.message, first.failure.hint)


def first_cause(ended: Sequence[Ended]) -> Ended | None:
    """Of processes in the order in which they ended: the first that failed of itself; None where none failed."""
    return min((one for one in ended if one.code), key=lambda one: AFTERMATH.get(one.failure.class_, 0), default=None)


def _start(number: int, spec_file: Path, work: Work, folder: Path) -> subprocess.Popen[bytes]:
    command: list[str | Path] = [sys.executable, "-m", "tunesmith_runtime", Verb.TRAIN]
    command += ["--spec", spec_file, "--work", work.root]
    told = {PROCESS_VARIABLE: str(number), TERMINATION_LOG_VARIABLE: str(_report_file(folder, number))}
    return subprocess.Popen(command, env={**os.environ, **told})


@contextmanager
def _passing_on_sigterm(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Within, SIGTERM goes on to every process: together they save their state and end."""

    def pass_on(*_: Any) -> None:
        for child in children:
            child.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        for child in children:
            child.kill()
            child.wait()


def _wait(children: Sequence[subprocess.Popen[bytes]], folder: Path) -> list[Ended]:
    """How all have ended, in the order in which they did. Who outlives a failed one for long is killed."""
    ended: dict[int, Ended] = {}
    end = None
    while len(ended) < len(children):
        for number, child in enumerate(children):
            if number not in ended and (code := child.poll()) is not None:
                ended[number] = Ended(number, code, _report(folder, number))
        if end is None and any(one.code for one in ended.values()):
            end = time.monotonic() + PATIENCE_WITH_SURVIVORS
        if end is not None and time.monotonic() > end:
            for number in set(range(len(children))) - set(ended):
                children[number].kill()
        time.sleep(LOOK_SECONDS)
    return list(ended.values())


def _report_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.json"


def _report(folder: Path, number: int) -> RunReport | None:
    """What a process has left."""
    try:
        return RunReport.model_validate_json(_report_file(folder, number).read_bytes())
    except (OSError, ValidationError):
        return None
