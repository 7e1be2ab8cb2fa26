"""Feeds a tracker from a thread. A tracker that is slow or unreachable neither delays nor fails a training."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from tunesmith_runtime.train.trackers.base import Connection, Point, RunState, TrackerRefused

log = logging.getLogger(__name__)

CAPACITY = 10_000
"""Points that wait at most. The oldest are dropped first: metrics.jsonl in the run's folder has all."""
INTERVAL_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 60.0
"""Bounds of the time between two requests: it doubles while requests fail."""
WARNING_SECONDS = 300.0
CLOSE_SECONDS = 10.0
"""Time limit for sending the last points at the end."""


class Feed:
    """Sends points in their order, as soon as there is a connection."""

    def __init__(self, name: str, connect: Callable[[], Connection], batch: int) -> None:
        self._name, self._connect, self._batch = name, connect, batch
        self._points: deque[Point] = deque(maxlen=CAPACITY)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._connection: Connection | None = None
        self._state: RunState | None = None
        self._dropped = 0
        self._warned_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._thread.start()

    @property
    def page(self) -> str | None:
        """URL of the run's page, once it is known."""
        return self._connection.page if self._connection else None

    def put(self, point: Point) -> None:
        """Queue a point; does not block."""
        with self._lock:
            self._dropped += len(self._points) == CAPACITY
            self._points.append(point)

    def close(self, state: RunState) -> None:
        """Send what is queued and the state of the run, for at most CLOSE_SECONDS."""
        self._state = state
        self._closed.set()
        self._thread.join(CLOSE_SECONDS)
        left = len(self._points) + self._dropped
        if left:
            log.warning(
                "%s lacks %d points of this attempt; logs/metrics.jsonl in the run's folder has all", self._name, left
            )
        elif self._state is not None:
            log.warning(
                "%s may lack the last points and the end of this attempt; logs/metrics.jsonl in the run's folder has all",
                self._name,
            )

    def _run(self) -> None:
        wait = INTERVAL_SECONDS
        while True:
            is_last = self._closed.is_set()
            try:
                self._send()
                wait = INTERVAL_SECONDS
                if is_last:
                    return
            except TrackerRefused as error:
                log.warning("%s gets no metrics of this attempt: %s", self._name, error)
                return
            except Exception as error:  # noqa: BLE001  # no error of a tracker may end a training
                self._warn(error)
                wait = INTERVAL_SECONDS if is_last else min(2 * wait, LONGEST_WAIT_SECONDS)
            if is_last:
                time.sleep(wait)
            else:
                self._closed.wait(wait)

    def _send(self) -> None:
        """Connect, and send all points that are queued; at the end also the state."""
        if self._connection is None:
            self._connection = self._connect()
            if self._connection.page:
                log.info("%s: %s", self._name, self._connection.page)
        while some := self._first():
            self._connection.log(some)
            self._remove(some)
        if (state := self._state) is not None:
            self._connection.finish(state)
            self._state = None

    def _first(self) -> list[Point]:
        with self._lock:
            return [self._points[at] for at in range(min(self._batch, len(self._points)))]

    def _remove(self, sent: list[Point]) -> None:
        """Remove points that were sent, unless newer ones have displaced them meanwhile."""
        with self._lock:
            for point in sent:
                if self._points and self._points[0] is point:
                    self._points.popleft()

    def _warn(self, error: Exception) -> None:
        """Log a failed request; repeat the warning every few minutes at most."""
        now = time.monotonic()
        if self._warned_at is None or now - self._warned_at >= WARNING_SECONDS:
            self._warned_at = now
            log.warning("%s is not reachable, and the training goes on: %s", self._name, error)
