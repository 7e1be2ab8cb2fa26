"""A tracker's own client, in a separate process.

Clients replace hooks of the interpreter, read its environment, start threads and wait for their server at exit. In a
separate process they disturb no training, which neither imports the client nor waits for it. The processes exchange
lines of JSON: the client's process answers each line with one line.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

from tunesmith_api.tracking import CREDENTIALS, TrackerName, Tracking
from tunesmith_runtime.credentials import without_secrets
from tunesmith_runtime.train.trackers.base import (
    OpenClient,
    Point,
    RunState,
    TrackedRun,
    Tracker,
    TrackerRefused,
)

MODULE = "tunesmith_runtime.train.trackers.client"
CONNECT_SECONDS = 180.0
"""Imports take a minute on a busy machine, and a client tries to reach its server for another."""
ANSWER_SECONDS = 30.0
FINISH_SECONDS = 9.0
"""Shorter than the time limit for the last points at the end."""
ENDING_SECONDS = 2.0
"""How long a process may take to remove its files after its last answer."""


class ClientProcess:
    """A run that a client holds open. The process is started again if it has ended."""

    def __init__(self, name: TrackerName, tracking: Tracking, run: TrackedRun) -> None:
        """Create the run, or open the run of an earlier attempt."""
        self._name = name
        self._opening = {"tracking": tracking.to_dict(), "run": asdict(run)}
        self._process = self._start()

    def log(self, points: Sequence[Point]) -> None:
        """Add points."""
        if self._process.poll() is not None:
            self._process = self._start()
        self._ask(self._process, {"points": [asdict(point) for point in points]}, ANSWER_SECONDS)

    def finish(self, state: RunState) -> None:
        """Set the state of the run, and end the process."""
        self._ask(self._process, {"state": state}, FINISH_SECONDS)
        _end(self._process, ENDING_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, self._name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=without_secrets(os.environ, keep=CREDENTIALS[self._name]),
            start_new_session=True,
        )
        self.page: str | None = self._ask(process, self._opening, CONNECT_SECONDS).get("page")
        return process

    def _ask(self, process: subprocess.Popen[bytes], content: Any, seconds: float) -> dict[str, Any]:
        """Return the answer of the client's process; end the process if it does not answer. Raises TrackerRefused,
        OSError."""
        assert process.stdin
        try:
            process.stdin.write(json.dumps(content).encode() + b"\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(_line(process, seconds))
        except (OSError, ValueError) as error:
            _end(process)
            raise OSError(f"the client of {self._name} does not answer: {error}") from error
        if "refused" in answer:
            _end(process, ENDING_SECONDS)
            raise TrackerRefused(answer["refused"])
        if "failed" in answer:
            _end(process, ENDING_SECONDS)
            raise OSError(answer["failed"])
        return answer


def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """Return the next line that a process writes. Raises OSError if there is none."""
    assert process.stdout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(seconds):
            raise TimeoutError(f"no answer within {seconds:g} seconds")
    line = process.stdout.readline()
    if not line:
        raise OSError(f"its process has ended with {process.wait()}")
    return line


def _end(process: subprocess.Popen[bytes], seconds: float = 0.0) -> None:
    """End a process after at most so many seconds. Points that it has not sent are lost."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(OSError):
                pipe.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    process.wait()


def client_tracker(name: TrackerName, open_client: OpenClient) -> Tracker:
    """Return the tracker of a client that runs in a separate process."""
    return Tracker(name, connect=partial(ClientProcess, name), batch=1000, open_client=open_client)
