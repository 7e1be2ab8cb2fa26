"""Helpers of the tests in this folder."""

from __future__ import annotations

from typing import Any

from tests.unit.operator.plan.world import (
    Cluster,
    fine_tune_job,
)
from tunesmith_api.run import ProgressReport
from tunesmith_operator.plan.types import Progress, Raw


def begun(resource: Raw | None = None) -> Cluster:
    """A job whose first attempt has been created."""
    cluster = Cluster(resource or fine_tune_job())
    cluster.begin()
    return cluster


def pushed(cluster: Cluster, step: int, stage: str = "train", **more: Any) -> None:
    """The pod of the first attempt pushes progress."""
    report = ProgressReport(stage=stage, step=step, total_steps=40, loss=2.0 / step, **more)
    cluster.progress["support-tune-1"] = Progress(report, cluster.now)
