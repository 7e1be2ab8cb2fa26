"""Helpers of the tests in this folder."""

from __future__ import annotations

import json
from typing import Any

from tests.unit.operator.plan.world import (
    Cluster,
    ended,
    eval_job,
    report,
    tuned,
)
from tunesmith_operator.plan.types import Raw, Reference

TUNED_MODEL = {"fineTuneJob": {"name": "support"}}


BASE = {"uri": "hf://Qwen/Qwen3-8B"}


def scored(value: float, **more: Any) -> Raw:
    """The containers of a pod that scored a model."""
    results = [{"benchmark": "support-qa", "metric": "accuracy", "value": value, "samples": 100}]
    artifacts = [{"name": "report", "uri": f"s3://store/evals/{value}"}]
    fetched = report("fetch", modelUri="s3://store/models/1", modelDigest="d9")
    return {
        "fetch": ended(message=fetched),
        "serve": ended(143),
        "evaluate": ended(message=report("evaluate", results=results, artifacts=artifacts, **more)),
    }


def score(cluster: Cluster, role: str, value: float, attempt: int = 1) -> None:
    name = f"support-eval-{role}-{attempt}"
    cluster.start_pod(name, "Succeeded", scored(value))
    cluster.end_job(name, "Complete")


def begun(**spec: Any) -> Cluster:
    cluster = Cluster(eval_job(**spec))
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.begin()
    return cluster


def run_spec_of(cluster: Cluster, job: str) -> Raw:
    return json.loads(cluster.jobs[job]["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/run"])
