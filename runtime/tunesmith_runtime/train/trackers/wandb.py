"""Weights & Biases, by its own client (https://docs.wandb.ai/ref/python).

All attempts are one run; its id is a digest of the run's folder. The client sends metrics and parameters, and nothing
about the machine, the code or the console.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith_api.tracking import TrackerName, Tracking
from tunesmith_runtime.train.trackers.base import Point, RunState, TrackedRun, TrackerRefused, is_final
from tunesmith_runtime.train.trackers.client_process import client_tracker
from tunesmith_runtime.train.trackers.naming import run_id, team_and_project

STEP = "train/global_step"
"""Metric of the x axis, as transformers' own callback names it."""
INIT_SECONDS = 60.0
"""How long the client tries to reach its server."""
REFUSAL = re.compile(r"returned error (\d{3})")
"""The status code in a message of the client, which repeats requests that may succeed."""
QUIET: dict[str, Any] = {
    "console": "off", "silent": True, "disable_git": True, "disable_code": True, "disable_job_creation": True,
    "x_disable_machine_info": True, "x_disable_meta": True, "x_disable_stats": True, "x_save_requirements": False,
}  # fmt: skip
"""Settings that keep the client from collecting anything by itself."""


class WandbRun:
    """A run that the client holds open."""

    def __init__(self, tracking: Tracking, run: TrackedRun, folder: Path) -> None:
        """Create the run, or open the run of an earlier attempt."""
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        os.environ.setdefault("WANDB_DIR", str(folder))
        import wandb
        from wandb.errors import AuthenticationError, CommError, UsageError

        team, project = team_and_project(run.experiment)
        settings = wandb.Settings(base_url=tracking.server, init_timeout=INIT_SECONDS, **QUIET)
        try:
            self._run = wandb.init(
                entity=team,
                project=project,
                name=run.name,
                id=run_id(run),
                resume="allow",
                config={**run.parameters, **run.tags},
                allow_val_change=True,
                settings=settings,
            )
        except (AuthenticationError, UsageError) as error:
            raise TrackerRefused(str(error)) from error
        except CommError as error:
            refused = REFUSAL.search(str(error))
            is_refused = refused is not None and is_final(int(refused[1]))
            raise (TrackerRefused if is_refused else OSError)(str(error)) from error
        self._teardown = wandb.teardown
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)
        self.page: str | None = self._run.url

    def log(self, points: Sequence[Point]) -> None:
        """Add points. The client sends them from a separate process, and repeats requests that fail."""
        for point in points:
            self._run.log({**point.values, STEP: point.step})

    def finish(self, state: RunState) -> None:
        """Send what is left, set the state of the run, and end the process that has sent it."""
        if state is RunState.INTERRUPTED:
            self._run.mark_preempting()
        exit_code = 0 if state is RunState.FINISHED else 1
        self._run.finish(exit_code=exit_code)
        self._teardown(exit_code)


WANDB = client_tracker(TrackerName.WANDB, WandbRun)
