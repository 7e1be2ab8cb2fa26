"""Load on the progress endpoint from 127.0.0.1: more reports, wrong ones, large ones, and connections held open."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

HELD = 600
"""Connections that are opened and never used; more than the operator keeps."""


class Flood:
    """A context manager: while it lasts, threads push as fast as they can, each `(token, body)` in one of its own."""

    def __init__(self, port: int, pushes: Mapping[str, tuple[str, bytes]]) -> None:
        self._port, self._pushes = port, pushes
        self._stop = threading.Event()
        self.answers: dict[str, Counter[int]] = {name: Counter() for name in pushes}
        """By name of the push: how often each HTTP status came back."""
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._held = [self._hold() for _ in range(HELD)]
        self._threads = [threading.Thread(target=self._push, args=(name,), daemon=True) for name in self._pushes]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        for held in self._held:
            held.close()
        self.seconds = time.monotonic() - self._began

    def _hold(self) -> socket.socket:
        held = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        held.sendall(b"POST /v1/progress HTTP/1.1\r\nAuthorization: Bearer ")
        return held

    def _push(self, name: str) -> None:
        token, body = self._pushes[name]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/v1/progress", body=body, headers=headers)
                answer = connection.getresponse()
                answer.read()
                self.answers[name][answer.status] += 1
            except (OSError, http.client.HTTPException):  # the operator may close what sends too much
                connection.close()


def report(step: int, **more: Any) -> bytes:
    """A report of training at a step."""
    return json.dumps({"stage": "train", "step": step, "totalSteps": 1000, "loss": 1.5, **more}).encode()
