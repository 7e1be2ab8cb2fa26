"""Worlds of processes for tests: forked from a server that has imported the libraries, which takes longer than to train."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.servers import free_port
from tests.unit.runtime.train.support import Run
from tunesmith_api.run import ProgressReport, RunReport, World
from tunesmith_runtime import train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rank import PROCESS_VARIABLE

PATIENCE = 300.0
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.unit.runtime.train.imported"])

Patch = Callable[[], None]
"""Changes something in a process before it trains; a function of a module, as it is pickled."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    report: RunReport | None = None
    failure: str | None = None
    hint: str | None = None


def train_together(run: Run, processes: int = 2, stop_at: int | None = None, patch: Patch | None = None) -> list[Ended]:
    """Train `run` by several processes of one pod. `stop_at`: the step after which process 0 receives SIGTERM."""
    world = World(processes=processes, port=free_port()) if processes > 1 else None
    spec = run.spec.model_copy(update={"world": world})
    pipes = [CONTEXT.Pipe(duplex=False) for _ in range(processes)]
    children = [
        CONTEXT.Process(target=_train, args=(Run(spec, run.work), number, stop_at, patch, pipe[1]))
        for number, pipe in enumerate(pipes)
    ]
    for child in children:
        child.start()
    try:
        return [_received(pipe[0]) for pipe in pipes]
    finally:
        for child in children:
            child.kill()
            child.join()


def _received(pipe: Connection) -> Ended:
    assert pipe.poll(PATIENCE), "the process does not end"
    ended: Ended = pipe.recv()
    return ended


def _train(run: Run, number: int, stop_at: int | None, patch: Patch | None, pipe: Connection) -> None:
    import torch

    from tunesmith_runtime.train import reporting

    class Stopping(ProgressPusher):
        def push(self, report: ProgressReport) -> None:
            if report.step == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

    torch.set_num_threads(1)
    os.environ.update({PROCESS_VARIABLE: str(number), "GLOO_SOCKET_IFNAME": "lo"})
    if stop_at is not None:
        reporting.SECONDS_BETWEEN_REPORTS = 0.0
    if patch:
        patch()
    try:
        pipe.send(Ended(train.run(run.spec, run.work, Stopping(None, None))))
    except RunFailure as failure:
        pipe.send(Ended(failure=str(failure), hint=failure.hint))
    except BaseException:
        pipe.send(Ended(failure=traceback.format_exc()))
        raise


class Forked:
    """`python -m tunesmith_runtime VERB`, forked from the server: what tests use of subprocess.Popen."""

    def __init__(self, run: Run, verb: str, environment: Mapping[str, str], patch: Patch | None = None) -> None:
        """`patch` runs in the process before the verb."""
        spec_file = run.work.root / "run-spec.json"
        spec_file.write_text(json.dumps(run.spec.to_dict()))
        arguments = [verb, "--spec", str(spec_file), "--work", str(run.work.root)]
        output, its_end = CONTEXT.Pipe(duplex=False)
        self.stdout = os.fdopen(os.dup(output.fileno()))
        self._process = CONTEXT.Process(target=_main, args=(arguments, dict(environment), patch, its_end), daemon=True)
        self._process.start()
        its_end.close()

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process.pid
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()

    def wait(self, timeout: float) -> int:
        """Wait for its end; return its exit code. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked verb", timeout)
        return self._process.exitcode

    def communicate(self, timeout: float) -> tuple[str, None]:
        """Return what else it prints until its end. After `timeout` seconds it is killed; subprocess.TimeoutExpired."""
        expired = threading.Event()
        killer = threading.Timer(timeout, lambda: (expired.set(), self.kill()))
        killer.start()
        printed = self.stdout.read()
        killer.cancel()
        self.wait(timeout)
        if expired.is_set():
            raise subprocess.TimeoutExpired("a forked verb", timeout, printed)
        return printed, None


def _main(arguments: list[str], environment: dict[str, str], patch: Patch | None, output: Connection) -> None:
    import torch

    from tunesmith_runtime.__main__ import main

    for stream in (sys.stdout, sys.stderr):
        os.dup2(output.fileno(), stream.fileno())
    output.close()
    torch.set_num_threads(1)
    os.environ.update(environment)
    if patch:
        patch()
    code = main(arguments)
    sys.stderr.flush()
    os._exit(code)


def tensors_of(report: RunReport) -> dict[str, Any]:
    """Return the tensors of the artifact that a run has published."""
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for artifact in report.artifacts or ():
        for path in sorted(Path(artifact.uri.removeprefix("file://")).rglob("*.safetensors")):
            found |= load_file(path)
    return found
