"""An engine that is a server program: started as a child process, checked with a request, stopped on SIGTERM.

Clients talk to the engine directly. Beside it, /ready is answered on the probe port, because no engine reports whether it
can generate a token.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.inferenceservice import Engine
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.serve.config import ServeConfig
from tunesmith_runtime.serve.probes import ProbeServer

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
HEALTH_TIMEOUT_SECONDS = 5.0
WARM_UP_TIMEOUT_SECONDS = 300.0
"""The first request may compile kernels."""
WARM_UP_TRIES = 5
RETRY_SECONDS = 5.0
TERMINATION_SECONDS = 60.0
"""How long an engine that failed its warm-up may take to exit before it is killed."""

NO_ANSWER = (OSError, http.client.HTTPException)


@dataclass(frozen=True)
class EngineProcess:
    """An engine by its command line and the environment variables that it needs beside the pod's."""

    name: Engine
    command: Callable[[ServeConfig], Sequence[str]]
    environment: Callable[[ServeConfig], Mapping[str, str]] = lambda config: {}

    def serve(self, config: ServeConfig) -> None:
        """Run the engine until SIGTERM. Raises RunFailure (EngineFailed) if it cannot start or exits by itself."""
        supervise(config, self.command(config), self.environment(config))


class Child:
    """The engine's process, and whether it is ready."""

    def __init__(self, config: ServeConfig, process: subprocess.Popen[str]) -> None:
        self._config, self._process = config, process
        self._warmed_up = False
        self._warm_up_failure: str | None = None
        self._stopping = threading.Event()

    def is_ready(self) -> bool:
        """Whether the engine has generated a token for every model name, is healthy, and is not stopping."""
        return self._warmed_up and not self._stopping.is_set() and self._is_healthy()

    def stop(self, _number: int = signal.SIGTERM, _frame: FrameType | None = None) -> None:
        """Become unready; after `linger_seconds`, ask the engine to stop. The engine drains."""
        if not self._stopping.is_set():
            self._stopping.set()
            threading.Timer(self._config.linger_seconds, self._process.terminate).start()

    def warm_up(self) -> None:
        """Wait until the engine is healthy, then generate a token for every model name; end an engine that never does."""
        cause = None
        for attempt in range(WARM_UP_TRIES):
            if attempt and self._stopping.wait(RETRY_SECONDS):
                return
            if not self._wait_healthy():
                return
            if (cause := self._generation_failure()) is None:
                self._warmed_up = True
                log.info("ready: %s", ", ".join(self._config.names))
                return
            log.warning("%s (try %d of %d)", cause, attempt + 1, WARM_UP_TRIES)
        self._warm_up_failure = f"{cause}, in {WARM_UP_TRIES} tries"
        self._process.terminate()
        try:
            self._process.wait(TERMINATION_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def wait(self) -> None:
        """Return when the engine has exited after `stop`.

        Raises RunFailure (EngineFailed) if it exited by itself or failed its warm-up.
        """
        code = self._process.wait()
        if not self._stopping.is_set():
            if self._warm_up_failure is not None:
                raise RunFailure(FailureClass.ENGINE_FAILED, self._warm_up_failure)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise RunFailure(FailureClass.ENGINE_FAILED, f"the engine ended with {how}")

    def _wait_healthy(self) -> bool:
        """Wait until the engine is healthy; False if it has exited or is stopping."""
        while not self._is_healthy():
            if self._stopping.wait(POLL_SECONDS) or self._process.poll() is not None:
                return False
        return True

    def _generation_failure(self) -> str | None:
        """Generate a token for every model name; return what went wrong, or None."""
        for name in self._config.names:
            body = {"model": name, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
            try:
                self._request("/v1/completions", body, WARM_UP_TIMEOUT_SECONDS)
            except NO_ANSWER as error:
                return f"the model {name} cannot generate a token: {error}"
        return None

    def _is_healthy(self) -> bool:
        try:
            self._request("/health", None, HEALTH_TIMEOUT_SECONDS)
        except NO_ANSWER:
            return False
        return True

    def _request(self, path: str, body: Mapping[str, Any] | None, timeout: float) -> None:
        headers = {"Content-Type": "application/json"}
        if self._config.api_key:
            headers["Authorization"] = f"Bearer {self._config.api_key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self._config.port}{path}", data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout) as response:
            response.read()


def supervise(config: ServeConfig, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run the engine until SIGTERM, and copy its output to our log.

    Raises RunFailure (EngineFailed) if it cannot be started or exits by itself.
    """
    try:
        process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        message = f"{command[0]} cannot be started: {error.strerror}"
        raise RunFailure(
            FailureClass.ENGINE_FAILED, message, "use an image that has the engine: images.engines in the chart"
        ) from error
    child = Child(config, process)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, child.stop)
    assert process.stdout is not None
    copying = threading.Thread(target=_copy_to_log, args=(process.stdout,), name="engine log", daemon=True)
    copying.start()
    threading.Thread(target=child.warm_up, name="warm up", daemon=True).start()
    probes = ProbeServer(config.host, config.ready_port, child.is_ready)
    try:
        child.wait()
    finally:
        copying.join(timeout=5)
        probes.close()


def _copy_to_log(output: IO[str]) -> None:
    for line in output:
        log.info("%s", line.rstrip())
