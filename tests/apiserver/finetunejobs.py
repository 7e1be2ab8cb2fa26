"""FineTuneJobs for tests, and the termination messages of their containers."""

from __future__ import annotations

import json
from typing import Any

from tests.apiserver.cluster import Cluster, Kubelet, Raw

SPEC: Raw = {"model": {"uri": "s3://models/base"}, "datasets": [{"uri": "s3://data/train.jsonl"}]}
ARTIFACTS = [
    {"name": "adapter", "uri": "s3://models/runs/x/y/z/adapter", "digest": "a" * 64, "sizeBytes": 7},
    {"name": "merged", "uri": "s3://models/runs/x/y/z/merged", "digest": "b" * 64, "sizeBytes": 9},
]
REPORTS: dict[str, Raw] = {
    "prepare": {"verb": "prepare", "outcome": "Succeeded", "runUri": "s3://models/runs/x/y/z"},
    "fetch": {"verb": "fetch", "outcome": "Succeeded", "modelUri": "s3://models/base", "modelDigest": "c" * 64},
    "train": {
        "verb": "train",
        "outcome": "Succeeded",
        "rows": {"kept": 10, "dropped": [{"reason": "tooLong", "count": 2}]},
        "metrics": {"trainLoss": 0.5, "steps": 30},
    },
    "export": {
        "verb": "export",
        "outcome": "Succeeded",
        "runUri": "s3://models/runs/x/y/z",
        "artifacts": ARTIFACTS,
        "metrics": {"trainLoss": 0.5, "steps": 30},
    },
}
MESSAGES = {name: json.dumps(report) for name, report in REPORTS.items()}


def tune(cluster: Cluster, name: str, **changes: Any) -> Raw:
    return cluster.create({"kind": "FineTuneJob", "metadata": {"name": name}, "spec": {**SPEC, **changes}})


def prepared(cluster: Cluster, name: str, job: str = "prepare") -> None:
    """What prepares a resource that asks for devices has found that there is work to do."""
    Kubelet(cluster, cluster.pod_of(f"{name}-{job}-1")).ends(MESSAGES)


def tune_on_devices(cluster: Cluster, name: str, **changes: Any) -> None:
    """A FineTuneJob that asks for devices, and has been prepared."""
    tune(cluster, name, **changes)
    prepared(cluster, name)


def started(cluster: Cluster, name: str) -> Kubelet:
    """The pod of a new FineTuneJob's first attempt, bound to a node."""
    tune(cluster, name)
    kubelet = Kubelet(cluster, cluster.pod_of(f"{name}-tune-1"))
    kubelet.bind()
    return kubelet


def succeed(cluster: Cluster, name: str) -> Raw:
    """A FineTuneJob that has run to its end."""
    started(cluster, name).ends(MESSAGES)
    return cluster.until_phase("FineTuneJob", name, "Succeeded")
