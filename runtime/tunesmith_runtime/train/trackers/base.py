"""The description of a tracker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from tunesmith_api.tracking import TrackerName, Tracking


class RunState(StrEnum):
    """End of an attempt. A further attempt continues an interrupted run."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True)
class TrackedRun:
    """Description of a run in a tracker, beside its metrics."""

    identity: str
    """The run's folder in the store. A further attempt finds the run by it."""
    name: str
    experiment: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Point:
    """The metrics of a step. All values are finite."""

    step: int
    time: float
    """Seconds since the epoch."""
    values: Mapping[str, float]


class TrackerRefused(Exception):
    """The server refuses the run or its credentials, so that no later request can succeed."""


TRANSIENT = frozenset({408, 425, 429})
"""Status codes below 500 after which a later request may succeed."""


def is_final(status: int) -> bool:
    """Whether no later request can succeed after an answer with this status code."""
    return status < 500 and status not in TRANSIENT


class Connection(Protocol):
    """A run on a tracker's server. Methods raise TrackerRefused, and OSError or ValueError for what may pass."""

    page: str | None
    """URL of the run's page, if it has one."""

    def log(self, points: Sequence[Point]) -> None:
        """Add points, at most `Tracker.batch` of them. A repeated point has no effect."""
        ...

    def finish(self, state: RunState) -> None:
        """Set the state of the run."""
        ...


OpenClient = Callable[[Tracking, TrackedRun, Path], Connection]
"""Opens a run by a tracker's own client, which may write below a folder. Raises as the methods of Connection do."""


@dataclass(frozen=True)
class Tracker:
    """A server that shows the metrics of runs."""

    name: TrackerName
    connect: Callable[[Tracking, TrackedRun], Connection]
    """Create the run on the server, or open it again. Raises as the methods of Connection do."""
    batch: int
    """Points in a request at most."""
    open_client: OpenClient | None = None
    """Where `connect` starts a process for the tracker's own client: what opens the run in that process."""
