"""The verb serve: an OpenAI API over the model, by the engine that the spec names."""

from __future__ import annotations

import logging
import os
import signal
import threading

from tunesmith_api.run import API_KEY_VARIABLE, Outcome, RunReport, RunSpec, Verb
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.serve.config import engine_of, serve_config
from tunesmith_runtime.serve.engines import ENGINES
from tunesmith_runtime.serve.probes import ProbeServer
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)


def run(spec: RunSpec, work: Work, progress: ProgressPusher) -> RunReport:
    """Serve until SIGTERM, then finish the requests in progress.

    If fetch has adopted a finished evaluation, no model is loaded and only the probes are answered.
    Raises RunFailure if the engine does not start.
    """
    config = serve_config(spec, work)
    if config.api_key is not None:
        os.environ[API_KEY_VARIABLE] = config.api_key  # the log formatter redacts this value
    if spec.kind == "EvalJob" and work.fetched().adopted:
        answer_probes(config.host, config.port, config.ready_port)
        return RunReport(verb=Verb.SERVE, outcome=Outcome.ADOPTED)
    # Spinning OpenMP threads compete for cores when several processes share them: 17 s instead of 0.2 s for eight
    # answers of a small model on two busy cores. The variable is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    engine = engine_of(spec)
    log.info("serving %s with %s on port %d", ", ".join(config.names), engine, config.port)
    ENGINES[engine].serve(config)
    return RunReport(verb=Verb.SERVE, outcome=Outcome.SUCCEEDED)


def answer_probes(host: str, *ports: int) -> None:
    """Answer the probes on `ports` until SIGTERM, without a model."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    servers = [ProbeServer(host, port, lambda: True) for port in ports]
    log.info("the evaluation is already finished: nothing to serve")
    stopped.wait()
    for server in servers:
        server.close()
