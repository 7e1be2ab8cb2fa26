"""Names of runs on servers where a client chooses the id of a run."""

from __future__ import annotations

from tunesmith_api.hashing import digest
from tunesmith_runtime.train.trackers.base import TrackedRun

ID_CHARACTERS = 21
"""Length of an id that every server takes."""


def run_id(run: TrackedRun) -> str:
    """Return the id of a run, which is equal for all attempts."""
    return digest(run.identity)[:ID_CHARACTERS]


def team_and_project(experiment: str) -> tuple[str | None, str]:
    """Return the team and the project of TEAM/PROJECT or PROJECT. The team is None for the default team of the API key."""
    team, _, project = experiment.rpartition("/")
    return team or None, project
