"""Trackers: each module defines one `Tracker`, and TRACKERS finds it by its name in the API."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith_api.tracking import TrackerName
from tunesmith_runtime.train.trackers.base import Tracker
from tunesmith_runtime.train.trackers.mlflow import MLFLOW
from tunesmith_runtime.train.trackers.swanlab import SWANLAB
from tunesmith_runtime.train.trackers.wandb import WANDB

__all__ = ["TRACKERS", "Tracker"]

TRACKERS: Mapping[TrackerName, Tracker] = {tracker.name: tracker for tracker in (MLFLOW, WANDB, SWANLAB)}
