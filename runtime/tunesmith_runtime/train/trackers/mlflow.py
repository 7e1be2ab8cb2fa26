"""MLflow, by its REST API 2.0 (https://mlflow.org/docs/latest/rest-api.html).

A run is found again by the tag tunesmith.run. Credentials are in the variables that MLflow's own client reads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from tunesmith_api.tracking import TrackerName, Tracking
from tunesmith_runtime.train.trackers.base import Point, RunState, TrackedRun, Tracker, TrackerRefused, is_final

API = "/api/2.0/mlflow/"
TIMEOUT_SECONDS = 10.0
METRICS = 1000
PARAMETERS = 100
"""Maximum content of a log-batch request."""
VALUE_CHARACTERS = 500
"""Maximum length of a parameter that every version of MLflow accepts."""
IDENTITY = "tunesmith.run"
RUNNING = "RUNNING"
STATES = {RunState.FINISHED: "FINISHED", RunState.INTERRUPTED: "SCHEDULED", RunState.FAILED: "FAILED"}


class MlflowRun:
    """A run on an MLflow server."""

    def __init__(self, tracking: Tracking, run: TrackedRun) -> None:
        """Create the run, or open the run of an earlier attempt."""
        url = tracking.server
        self._http = httpx.Client(base_url=url + API, timeout=TIMEOUT_SECONDS, **credentials(os.environ))
        experiment = self._experiment(run.experiment)
        found = self._find(experiment, run)
        self._run = found or self._create(experiment, run)
        if found:
            self._post("runs/update", run_id=found, status=RUNNING)
        self.page: str | None = f"{url}/#/experiments/{experiment}/runs/{self._run}"

    def log(self, points: Sequence[Point]) -> None:
        """Add points. MLflow identifies a point by its key, time, step and value."""
        metrics = [
            {"key": name, "value": value, "timestamp": round(point.time * 1000), "step": point.step}
            for point in points
            for name, value in point.values.items()
        ]
        for start in range(0, len(metrics), METRICS):
            self._post("runs/log-batch", run_id=self._run, metrics=metrics[start : start + METRICS])

    def finish(self, state: RunState) -> None:
        """Set the status of the run."""
        self._post("runs/update", run_id=self._run, status=STATES[state])

    def _experiment(self, name: str) -> str:
        """Return the id of an experiment; create it if it does not exist. Another run may create it meanwhile."""
        for _ in range(2):
            found = self._request("GET", "experiments/get-by-name", params={"experiment_name": name}, expected=(404,))
            if found is not None:
                return str(found["experiment"]["experiment_id"])
            created = self._request("POST", "experiments/create", json={"name": name}, expected=(400,))
            if created is not None:
                return str(created["experiment_id"])
        raise TrackerRefused(f"the experiment {name!r} can neither be found nor created")

    def _find(self, experiment: str, run: TrackedRun) -> str | None:
        query = f'tags.`{IDENTITY}` = "{run.identity}"'  # a URI has no such quotes
        found = self._post("runs/search", experiment_ids=[experiment], filter=query, max_results=1).get("runs") or []
        return str(found[0]["info"]["run_id"]) if found else None

    def _create(self, experiment: str, run: TrackedRun) -> str:
        tags = [{"key": key, "value": value} for key, value in {IDENTITY: run.identity, **run.tags}.items()]
        created = self._post("runs/create", experiment_id=experiment, run_name=run.name, tags=tags)
        identifier = str(created["run"]["info"]["run_id"])
        parameters = [{"key": key, "value": value[:VALUE_CHARACTERS]} for key, value in run.parameters.items()]
        for start in range(0, len(parameters), PARAMETERS):
            self._post("runs/log-batch", run_id=identifier, params=parameters[start : start + PARAMETERS])
        return identifier

    def _post(self, path: str, **content: Any) -> dict[str, Any]:
        return self._request("POST", path, json=content) or {}

    def _request(self, method: str, path: str, expected: tuple[int, ...] = (), **content: Any) -> dict[str, Any] | None:
        """Return the answer; None for an `expected` status code. Raises TrackerRefused, OSError, ValueError."""
        try:
            answer = self._http.request(method, path, **content)
        except httpx.HTTPError as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        if answer.status_code in expected:
            return None
        if answer.is_success:
            found: dict[str, Any] = answer.json()
            return found
        cause = f"{path}: {answer.status_code} {answer.reason_phrase} {message_of(answer)}".strip()
        raise (TrackerRefused if is_final(answer.status_code) else OSError)(cause)


def message_of(answer: httpx.Response) -> str:
    """Return the message of an error, at most 200 characters."""
    try:
        return str(answer.json()["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return ""


def credentials(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return httpx' options for the credentials in the environment: a token, or a user with a password."""
    token, user, password = (environment.get(f"MLFLOW_TRACKING_{name}") for name in ("TOKEN", "USERNAME", "PASSWORD"))
    if token:
        return {"headers": {"Authorization": f"Bearer {token}"}}
    return {"auth": (user, password or "")} if user else {}


MLFLOW = Tracker(TrackerName.MLFLOW, connect=MlflowRun, batch=100)
