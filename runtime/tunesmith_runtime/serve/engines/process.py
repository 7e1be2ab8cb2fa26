"""An engine that is a server of its own, as a child process: started, tried out, stopped, and its end explained.

Requests go to the engine itself; nothing of ours is in their way. Beside it we answer /ready on the probe port, as no
engine has a path that says "a token was generated".
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import IO, Any

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.serve.readiness import Probes
from tunesmith_runtime.serve.served import Served

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
TRY_OUT_SECONDS = 300.0
"""The first request may compile kernels."""
TRIES = 5
RETRY_SECONDS = 5.0
END_SECONDS = 60.0
"""An engine that is given up is killed when it has not ended by then."""

NO_ANSWER = (OSError, http.client.HTTPException)


class Child:
    """The engine's process, and whether it can answer."""

    def __init__(self, served: Served, process: subprocess.Popen[str]) -> None:
        self._served, self._process = served, process
        self._tried = False
        self._given_up: str | None = None
        self._stopping = threading.Event()

    def ready(self) -> bool:
        """Whether it has generated a token by every name, is not asked to stop, and is well now."""
        return self._tried and not self._stopping.is_set() and self._healthy()

    def stop(self, _number: int = signal.SIGTERM, _frame: FrameType | None = None) -> None:
        """Not ready any more; after the time that the cluster needs to know it, the engine is asked to stop, and drains."""
        if not self._stopping.is_set():
            self._stopping.set()
            threading.Timer(self._served.linger, self._process.terminate).start()

    def try_out(self) -> None:
        """Wait for the engine, then let it generate a token by every name; end it where it still does not after TRIES."""
        why = None
        for attempt in range(TRIES):
            if attempt and self._stopping.wait(RETRY_SECONDS):
                return
            if not self._wait_healthy():
                return
            if (why := self._generates()) is None:
                self._tried = True
                log.info("ready: %s", ", ".join(self._served.names))
                return
            log.warning("%s (try %d of %d)", why, attempt + 1, TRIES)
        self._given_up = f"{why}, in {TRIES} tries"
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def wait(self) -> None:
        """Return when the engine has ended as it was asked to.

        Raises RunFailure (EngineFailed) where it ended by itself, or was ended as it generated nothing.
        """
        code = self._process.wait()
        if not self._stopping.is_set():
            if self._given_up is not None:
                raise RunFailure(FailureClass.ENGINE_FAILED, self._given_up)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise RunFailure(FailureClass.ENGINE_FAILED, f"the engine ended with {how}")

    def _wait_healthy(self) -> bool:
        """Wait until the engine is well; False where it has ended or is asked to stop."""
        while not self._healthy():
            if self._stopping.wait(POLL_SECONDS) or self._process.poll() is not None:
                return False
        return True

    def _generates(self) -> str | None:
        """Let the engine generate a token by every name; None, or what went wrong."""
        for name in self._served.names:
            body = {"model": name, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
            try:
                self._ask("/v1/completions", body, TRY_OUT_SECONDS)
            except NO_ANSWER as error:
                return f"the model {name} can't generate a token: {error}"
        return None

    def _healthy(self) -> bool:
        try:
            self._ask("/health", None, 5.0)
        except NO_ANSWER:
            return False
        return True

    def _ask(self, path: str, body: Mapping[str, Any] | None, timeout: float) -> None:
        headers = {"Content-Type": "application/json"}
        if self._served.api_key:
            headers["Authorization"] = f"Bearer {self._served.api_key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self._served.port}{path}", data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            answer.read()


def supervise(served: Served, argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run the engine until SIGTERM; its log lines are ours.

    Raises RunFailure (EngineFailed) where it cannot be started or ends by itself.
    """
    try:
        process = subprocess.Popen(
            argv,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        message = f"{argv[0]} can't be started: {error.strerror}"
        raise RunFailure(
            FailureClass.ENGINE_FAILED, message, "use an image that has the engine: images.engines in the chart"
        ) from error
    child = Child(served, process)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, child.stop)
    assert process.stdout is not None
    telling = threading.Thread(target=_tell, args=(process.stdout,), name="engine's log", daemon=True)
    telling.start()
    threading.Thread(target=child.try_out, name="try out", daemon=True).start()
    probes = Probes(served.host, served.ready_port, child.ready)
    try:
        child.wait()
    finally:
        telling.join(timeout=5)
        probes.close()


def _tell(output: IO[str]) -> None:
    for line in output:
        log.info("%s", line.rstrip())
