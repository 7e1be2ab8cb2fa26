"""Progress pushes: the newest report goes to the operator every few seconds, and never holds up or fails the run."""

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
COMPLAIN_SECONDS = 60.0
REFUSED_FOR_GOOD = frozenset({400, 403, 404, 413})
"""Answers that say that no later push will be taken either. 401 is none: a new leader has yet to hear of the Job."""
TOO_SOON = 429


class ProgressPusher:
    """Pushes the newest of the reports it is given; without a URL it does nothing.

    Use it as a context manager: leaving it pushes what is not yet pushed, waiting at most one time-out.
    """

    def __init__(self, url: str | None, token: str | None, interval: float = INTERVAL_SECONDS) -> None:
        self._url, self._token, self._interval = url, token or "", interval
        self._newest: ProgressReport | None = None
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._complained: float | None = None

    @classmethod
    def of(cls, spec: RunSpec) -> ProgressPusher:
        """The progress of a run, with the pod's token from the environment. Of pods that train together, one speaks."""
        return cls(spec.progress_url if in_leading_pod(spec.world) else None, os.environ.get(PROGRESS_TOKEN_VARIABLE))

    def push(self, report: ProgressReport) -> None:
        """Remember `report` as the newest; returns at once."""
        if not self._url or self._closed.is_set():
            return
        with self._lock:
            self._newest = report
        self._changed.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Push what is left."""
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
        """Push one report; False where no later one will be taken either."""
        assert self._url is not None
        body = json.dumps(report.to_dict()).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        try:
            request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
                self._complained = None
        except urllib.error.HTTPError as error:
            if error.code != TOO_SOON:
                self._complain(f"{error.code} {error.reason}")
            return error.code not in REFUSED_FOR_GOOD
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._complain(str(error))
        return True

    def _complain(self, what: str) -> None:
        """Say so in the log, at first and then once a minute for as long as nothing is taken."""
        now = time.monotonic()
        if self._complained is None or now - self._complained >= COMPLAIN_SECONDS:
            self._complained = now
            log.warning("progress push to %s: %s", self._url, what)
