"""Helpers of the tests in this folder."""

from __future__ import annotations

from tests.unit.operator.plan.world import (
    Cluster,
    fine_tune_job,
)
from tunesmith_api.run import ProgressReport
from tunesmith_operator.plan.types import Progress


def begun(thing=None) -> Cluster:
    """A job whose first attempt is made."""
    cluster = Cluster(thing or fine_tune_job())
    cluster.begin()
    return cluster


def pushed(cluster: Cluster, step: int, stage: str = "train", **more) -> None:
    report = ProgressReport(stage=stage, step=step, total_steps=40, loss=2.0 / step, **more)
    cluster.progress["support-tune-1"] = Progress(report, cluster.now)
