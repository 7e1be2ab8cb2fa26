"""SwanLab, by its own client (https://docs.swanlab.cn/en/api/py-init.html).

All attempts are one run; its id is a digest of the run's folder. SwanLab keeps the first point of a step. The client
sends metrics and parameters, and nothing about the machine, the code and the console.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from tunesmith_api.tracking import TrackerName, Tracking
from tunesmith_runtime.train.trackers.base import Point, RunState, TrackedRun, TrackerRefused, is_final
from tunesmith_runtime.train.trackers.client_process import client_tracker
from tunesmith_runtime.train.trackers.naming import run_id, team_and_project

TIMEOUT_SECONDS = 10.0
STATES = {RunState.FINISHED: "success", RunState.INTERRUPTED: "aborted", RunState.FAILED: "crashed"}
QUIET: dict[str, Any] = {
    "interactive": False,
    "terminal": {"proxy_type": "none"},
    "probe": dict.fromkeys(("hardware", "runtime", "requirements", "git", "swanlab", "monitor"), False),
}
"""Settings that keep the client from collecting anything by itself."""


class SwanlabRun:
    """A run that the client holds open."""

    def __init__(self, tracking: Tracking, run: TrackedRun, folder: Path) -> None:
        """Create the run, or open the run of an earlier attempt."""
        os.environ.setdefault("SWANLAB_LOG_DIR", str(folder))
        import swanlab
        from swanlab.exceptions import ApiError, AuthenticationError

        team, project = team_and_project(run.experiment)
        try:
            self._run = swanlab.init(
                workspace=team,
                project=project,
                name=run.name,
                id=run_id(run),
                resume="allow",
                config={**run.parameters, **run.tags},
                settings=swanlab.Settings(api_host=tracking.server, **QUIET),
            )
        except AuthenticationError as error:
            check_reachable(tracking.server)  # the client names the key also if its server is down
            raise TrackerRefused(str(error)) from error
        except ApiError as error:
            raise (TrackerRefused if is_final(error.response.status_code) else OSError)(str(error)) from error
        self.page: str | None = self._run.url if self._run.mode == "online" else None

    def log(self, points: Sequence[Point]) -> None:
        """Add points. The client sends them from threads, and repeats requests that fail."""
        for point in points:
            self._run.log(dict(point.values), step=point.step)

    def finish(self, state: RunState) -> None:
        """Send what is left, and set the state of the run."""
        self._run.finish(state=STATES[state], error=None if state is RunState.FINISHED else f"the attempt was {state}")


def check_reachable(url: str) -> None:
    """Raise OSError unless a server answers."""
    try:
        httpx.get(url, timeout=TIMEOUT_SECONDS).raise_for_status()
    except httpx.HTTPStatusError as error:
        if not is_final(error.response.status_code):
            raise OSError(str(error)) from error
    except httpx.HTTPError as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


SWANLAB = client_tracker(TrackerName.SWANLAB, SwanlabRun)
