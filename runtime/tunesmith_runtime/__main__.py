"""`python -m tunesmith_runtime VERB --spec FILE [--work DIR]`: run a verb and write its report.

A verb (see verbs.py) returns its report or raises RunFailure. SIGTERM ends a verb as Preempted, unless the verb installs
a handler of its own.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pydantic import ValidationError

from tunesmith_api.compatibility import refusals
from tunesmith_api.failures import FailureClass
from tunesmith_api.hashing import SPECS
from tunesmith_api.refusal import combine
from tunesmith_api.run import SPEC_FILE, WORK_DIRECTORY, Outcome, RunReport, RunSpec, Verb
from tunesmith_runtime import credentials
from tunesmith_runtime.cache import cache_in_use
from tunesmith_runtime.catalogue import look_up
from tunesmith_runtime.errors import RunFailure, StopRequested, class_of, sharpened
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.report import RecentLines, failed, fitted, start_logging, write_report
from tunesmith_runtime.verbs import VERBS
from tunesmith_runtime.workdir import Work

log = logging.getLogger("tunesmith_runtime")


def read_spec(path: Path) -> RunSpec:
    """Read the run's spec and validate it as the API server and the operator do.

    Raises RunFailure (BadSpec) that names the file and the field.
    """
    try:
        spec = RunSpec.model_validate_json(path.read_bytes())
        data = SPECS[spec.kind].model_validate(spec.spec).to_dict()
    except OSError as error:
        raise RunFailure(FailureClass.BAD_SPEC, f"{path}: {error.strerror}", "name the file with --spec") from error
    except KeyError as error:
        raise RunFailure(
            FailureClass.BAD_SPEC, f"{path}: kind {error} is not FineTuneJob, EvalJob or InferenceService"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RunFailure(FailureClass.BAD_SPEC, f"{path}: {field}: {first['msg']}") from error
    if refused := refusals(spec.kind, data):
        refusal = combine(refused)
        raise RunFailure(FailureClass.BAD_SPEC, f"{path}: {refusal.message}", refusal.hint)
    return spec


def gated_metrics(spec: RunSpec) -> set[tuple[str, str]]:
    """Return benchmark and metric of every gate of an EvalJob; nothing for other kinds."""
    return {(gate.benchmark, gate.metric) for gate in spec.eval_job().gates or ()} if spec.kind == "EvalJob" else set()


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
    raise StopRequested


def run_verb(verb: Verb, spec_file: Path, work: Work, recent: RecentLines) -> tuple[RunReport, int]:
    """Run `verb`; return its report and exit code."""
    try:
        spec = read_spec(spec_file)
        with ProgressPusher.of(spec) as progress, cache_in_use(verb, spec, work):
            report = fitted(VERBS[verb].run(look_up(spec, verb, work), work, progress), gated_metrics(spec))
        preempted = report.outcome is Outcome.PREEMPTED
        return report, RunFailure(FailureClass.PREEMPTED, "").exit_code if preempted else 0
    except StopRequested:
        stopped = RunFailure(FailureClass.PREEMPTED, "the pod was asked to stop (SIGTERM)")
        return failed(verb, stopped), stopped.exit_code
    except RunFailure as raised:
        failure = sharpened(raised, recent.tail(characters=100_000))
        log.error("%s", failure)
        return failed(verb, failure, recent.tail()), failure.exit_code
    except Exception as error:  # status must show any failure, including a bug
        log.exception("%s failed", verb)
        unknown = RunFailure(class_of(error), f"{type(error).__name__}: {error}")
        return failed(verb, unknown, recent.tail()), unknown.exit_code


def main(arguments: list[str] | None = None) -> int:
    """Run the verb that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tunesmith_runtime", description="Run one stage of a resource.")
    parser.add_argument("verb", choices=list(Verb), type=Verb, help="what to do")
    parser.add_argument("--spec", type=Path, default=Path(SPEC_FILE), help="RunSpec as JSON (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path(WORK_DIRECTORY), help="work directory (default: %(default)s)")
    options = parser.parse_args(arguments)
    faulthandler.enable()
    credentials.trim()
    recent = start_logging()
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars fill a log with control characters
    signal.signal(signal.SIGTERM, _stop)
    report, code = run_verb(options.verb, options.spec, Work(options.work), recent)
    write_report(report)
    return code


if __name__ == "__main__":
    exit_code = main()
    sys.stderr.flush()
    os._exit(exit_code)  # do not wait for threads of libraries
