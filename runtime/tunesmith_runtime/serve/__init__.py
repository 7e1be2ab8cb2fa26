"""The verb serve: an OpenAI API over the model, by the engine that the spec names."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading

from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
from tunesmith_runtime.progress_push import Progress
from tunesmith_runtime.serve.keys import API_KEY_VARIABLE
from tunesmith_runtime.serve.readiness import Probes
from tunesmith_runtime.serve.served import engine_of, served
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)


def run(spec: RunSpec, work: Work, progress: Progress) -> RunReport:
    """Serve until SIGTERM; the pod's requests that run then are finished.

    Where fetch adopted a finished evaluation nothing will ask: the probes are answered and no model is loaded.
    Raises RunFailure where the engine does not come up.
    """
    what = served(spec, work)
    if what.api_key is not None:
        os.environ[API_KEY_VARIABLE] = what.api_key  # the log is redacted by it
    if spec.kind == "EvalJob" and work.fetched().adopted:
        idle(what.host, what.port, what.ready_port)
        return RunReport(verb=Verb.SERVE, outcome=Outcome.ADOPTED)
    # Threads that spin while they wait take the cores from each other where several processes share them: on two cores that
    # other work kept busy, eight answers of a small model took 17 s with spinning and 0.2 s without. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    engine = engine_of(spec)
    log.info("serving %s with %s on port %d", ", ".join(what.names), engine, what.port)
    importlib.import_module(f"tunesmith_runtime.serve.engines.{engine}").serve(what)
    return RunReport(verb=Verb.SERVE, outcome=Outcome.SUCCEEDED)


def idle(host: str, *ports: int) -> None:
    """Answer the probes until SIGTERM, with nothing behind them."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    answering = [Probes(host, port, lambda: True) for port in ports]
    log.info("the evaluation is finished already: nothing to serve")
    stopped.wait()
    for probes in answering:
        probes.close()
