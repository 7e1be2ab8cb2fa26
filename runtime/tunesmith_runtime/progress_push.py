"""Pushes the newest progress report to the operator every few seconds. A push never delays or fails the run."""

from __future__ import annotations

import http.client
import json
import logging
import os
import threading
import time
import urllib.error
import urllib.request
from types import TracebackType
from typing import Self

from tunesmith_api.run import PROGRESS_TOKEN_VARIABLE, ProgressReport, RunSpec
from tunesmith_runtime.rank import in_leading_pod

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 3.0
TIMEOUT_SECONDS = 5.0
WARNING_SECONDS = 60.0
PERMANENT = frozenset({400, 403, 404, 413})
"""Status codes after which no later push can succeed. 401 is transient: a new leader may not know the Job yet."""
TOO_MANY_REQUESTS = 429


class ProgressPusher:
    """Pushes the newest report. Without a URL it does nothing.

    As a context manager, it pushes the last report on exit and waits at most TIMEOUT_SECONDS.
    """

    def __init__(self, url: str | None, token: str | None, interval: float = INTERVAL_SECONDS) -> None:
        self._url, self._token, self._interval = url, token or "", interval
        self._newest: ProgressReport | None = None
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._warned_at: float | None = None

    @classmethod
    def of(cls, spec: RunSpec) -> ProgressPusher:
        """Return the pusher of a run, with the pod's token from the environment. Only the leading pod of a group pushes."""
        return cls(spec.progress_url if in_leading_pod(spec.world) else None, os.environ.get(PROGRESS_TOKEN_VARIABLE))

    def push(self, report: ProgressReport) -> None:
        """Replace the newest report; does not block."""
        if not self._url or self._closed.is_set():
            return
        with self._lock:
            self._newest = report
        self._changed.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Push the last report."""
        self._closed.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join(TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            with self._lock:
                report, self._newest = self._newest, None
            if report is not None and not self._send(report):
                return
            if self._closed.wait(self._interval) and self._newest is None:
                return

    def _send(self, report: ProgressReport) -> bool:
        """Push a report; return False if no later push can succeed."""
        assert self._url is not None
        body = json.dumps(report.to_dict()).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        try:
            request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
                self._warned_at = None
        except urllib.error.HTTPError as error:
            if error.code != TOO_MANY_REQUESTS:
                self._warn(f"{error.code} {error.reason}")
            return error.code not in PERMANENT
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._warn(str(error))
        return True

    def _warn(self, cause: str) -> None:
        """Log a failed push; repeat the warning at most once a minute until a push succeeds."""
        now = time.monotonic()
        if self._warned_at is None or now - self._warned_at >= WARNING_SECONDS:
            self._warned_at = now
            log.warning("progress push to %s failed: %s", self._url, cause)
