"""Pods and Events of the tests of failures."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.unit.operator.plan.world import START, Cluster, condition, fine_tune_job
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Raw


def pod(phase: str = "Failed", states: Raw | None = None, thing: Raw | None = None, **status: Any) -> Raw:
    """A pod of the first Job of `thing`."""
    cluster = Cluster(thing or fine_tune_job(resources={"accelerator": "nvidia", "memory": "4Gi"}))
    cluster.begin()
    return cluster.start_pod(max(cluster.jobs), phase, states, **status)


def disrupted(reason: str) -> list[Raw]:
    return [condition("DisruptionTarget", True, reason, f"because of {reason}")]


def event(kind: str, name: str, reason: str, message: str, at: int = 0) -> Raw:
    return {
        "involvedObject": {"kind": kind, "name": name},
        "reason": reason,
        "message": message,
        "lastTimestamp": format_time(START + timedelta(seconds=at)),
    }
