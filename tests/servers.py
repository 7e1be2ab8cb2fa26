"""The verb serve as a process on 127.0.0.1, for tests of its API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devcluster.standalone import free_ports

START_SECONDS = 240
"""Time within which a server must be ready. Imports are slow on a busy machine."""


def run_spec(kind: str, name: str, spec: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A RunSpec as the operator writes it, as JSON-ready data."""
    return {
        "kind": kind,
        "name": name,
        "namespace": "default",
        "uid": "6f1f2c0e-0000-4000-8000-000000000000",
        "spec": {"model": {"uri": "s3://models/base"}, **(spec or {})},
        "specHash": "0123456789abcdef",
        "store": {"uri": "s3://store"},
        "models": {"base": {"uri": "s3://models/base"}},
        "outputUri": "s3://store/runs",
        **fields,
    }


def free_port() -> int:
    """A free port of 127.0.0.1 whose successor, for /ready, is free too."""
    while True:
        [port] = free_ports(1)
        with socket.socket() as second:
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


class Server:
    """A running verb serve."""

    def __init__(self, spec: Path, work: Path, environment: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = work / f"serve-{self.port}.log"
        self.report = work / f"serve-{self.port}.report"
        command = [sys.executable, "-m", "tunesmith_runtime", "serve", "--spec", str(spec), "--work", str(work)]
        settings = {
            "TUNESMITH_PORT": str(self.port),
            "TUNESMITH_TERMINATION_LOG": str(self.report),
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "HF_HUB_OFFLINE": "1",
            **(environment or {}),
        }
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, env=os.environ | settings, stdout=output, stderr=subprocess.STDOUT)

    def status(self, path: str) -> int:
        """HTTP status of a GET; 0 where nothing listens."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def wait_ready(self) -> Server:
        """Wait until /ready answers 200. Raises AssertionError with the log if it does not."""
        end = time.monotonic() + START_SECONDS
        while self.status("/ready") != 200:
            assert self.process.poll() is None, f"serve ended with {self.process.returncode}:\n{self.log.read_text()}"
            assert time.monotonic() < end, f"serve is not ready:\n{self.log.read_text()}"
            time.sleep(0.2)
        return self

    def terminate(self) -> None:
        """What the kubelet does first."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """The exit code, when it has ended."""
        return self.process.wait(timeout=START_SECONDS)

    def read_report(self) -> dict[str, Any]:
        """Return the report that the server wrote."""
        report: dict[str, Any] = json.loads(self.report.read_text())
        return report

    def stop(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
