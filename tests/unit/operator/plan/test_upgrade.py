"""Children and status of earlier releases stay as they are.

The plans of the earlier release run in a process of their own, from its package. The new plans observe their children.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from tests.releases import release
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.types import CHILDREN, Observed, Plan, Raw, Reference

VERSIONS = ("0.1.0", "0.2.0")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONFIG: Raw = {
    "images": {"runtime": "registry/runtime:1"},
    "store": {"uri": "s3://models", "credentialsSecret": "store"},
}
BASE: Raw = {"uri": "s3://models/base"}
TUNE: Raw = {"model": BASE, "datasets": [{"uri": "s3://data/train.jsonl"}]}
EVAL: Raw = {"model": BASE, "benchmarks": [{"name": "words", "dataset": {"uri": "s3://data/test.jsonl"}}]}
TUNED: Raw = {
    "kind": "FineTuneJob",
    "metadata": {"name": "tuned"},
    "spec": TUNE,
    "status": {
        "phase": "Succeeded",
        "model": {"uri": "s3://models/base", "digest": "d1"},
        "artifacts": [{"name": "adapter", "uri": "s3://models/run/adapter", "digest": "d2"}],
    },
}
"""A finished job that has published an adapter only."""
BY_JOB: Raw = {"fineTuneJob": {"name": "tuned"}}
MEMORY: Raw = {"memory": "4Gi", "sharedMemory": "1Gi", "ephemeralStorage": "50Gi"}
SPECS: dict[str, tuple[str, Raw]] = {
    "tune": ("FineTuneJob", TUNE),
    "tune-device": (
        "FineTuneJob",
        {**TUNE, "resources": {**MEMORY, "accelerator": "nvidia"}, "retries": 3, "deadline": "3h"},
    ),
    "tune-suspended": ("FineTuneJob", {**TUNE, "suspend": True}),
    "tune-refused": ("FineTuneJob", {**TUNE, "model": {**BASE, "trustRemoteCode": True}}),
    "eval": ("EvalJob", EVAL),
    "eval-tuned": ("EvalJob", {**EVAL, "model": BY_JOB}),
    "eval-baseline": ("EvalJob", {**EVAL, "baseline": BASE, "resources": MEMORY}),
    "serve": ("InferenceService", {"model": BASE}),
    "serve-memory": ("InferenceService", {"model": BASE, "resources": MEMORY, "maxModelLength": 512}),
    "serve-adapters": (
        "InferenceService",
        {"model": BASE, "adapters": [{"name": "a", "uri": "s3://adapters/a"}, {"name": "b", **BY_JOB}]},
    ),
    "serve-tuned": ("InferenceService", {"model": BY_JOB}),
    "serve-slowly": ("InferenceService", {"model": BASE, "rollout": {"strategy": "Recreate", "readyTimeout": "2h"}}),
}
OLD = """
import json, sys
from datetime import datetime
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.types import Observed, Reference
config, now, tuned, resources = json.load(sys.stdin)
config, now = OperatorConfig.model_validate(config), datetime.fromisoformat(now)
observed = Observed(references={Reference("FineTuneJob", "tuned"): tuned})
plans = {
    name: KINDS[resource["kind"]].plan(resource, observed, now, config, lambda uid, job: "token")
    for name, resource in resources.items()
}
print(json.dumps({name: [[*plan.create, *plan.apply], plan.status] for name, plan in plans.items()}))
"""


def resource(name: str) -> Raw:
    kind, spec = SPECS[name]
    metadata = {"name": name, "namespace": "team", "uid": f"uid-{name}", "generation": 1, "resourceVersion": "1"}
    return {"apiVersion": "tunesmith.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


@cache
def old_plans(version: str) -> dict[str, Any]:
    """Children and status by name, as an earlier release plans them."""
    payload = json.dumps([CONFIG, NOW.isoformat(), TUNED, {name: resource(name) for name in SPECS}])
    environment = {**os.environ, "PYTHONPATH": str(release(version).operator)}
    done = subprocess.run(
        [sys.executable, "-c", OLD], input=payload, env=environment, capture_output=True, text=True, check=True
    )
    plans: dict[str, Any] = json.loads(done.stdout)
    return plans


def take_over(version: str, name: str) -> tuple[list[Raw], Plan]:
    """The children that the old plan has created, with pods that answer if it serves, and the new plan for them."""
    manifests, reported = old_plans(version)[name]
    status = {field: value for field, value in reported.items() if value is not None}
    children = [
        {**manifest, "metadata": {**manifest["metadata"], "uid": manifest["metadata"]["name"], "generation": 1}}
        for manifest in manifests
    ]
    for child in children:
        if child["kind"] == "Deployment":
            counts = {name: 1 for name in ("replicas", "readyReplicas", "updatedReplicas", "availableReplicas")}
            child["status"] = {**counts, "observedGeneration": 1}
            served = child["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/version"]
            status |= {"version": served, "phase": "Ready", "reason": "Serving"}
    by_field: dict[str, list[Raw]] = {}
    for child in children:
        by_field.setdefault(CHILDREN[child["kind"]], []).append(child)
    observed = Observed(
        **{field: tuple(found) for field, found in by_field.items()},
        references={Reference("FineTuneJob", "tuned"): TUNED},
    )
    config = OperatorConfig.model_validate(CONFIG)
    kind = KINDS[SPECS[name][0]]
    return children, kind.plan({**resource(name), "status": status}, observed, NOW, config, lambda uid, job: "token")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SPECS)
def test_children_of_earlier_releases_are_neither_replaced_nor_changed(version: str, name: str) -> None:
    children, plan = take_over(version, name)
    existing = {(child["kind"], child["metadata"]["name"]) for child in children}
    assert not plan.delete
    assert not [manifest for manifest in plan.apply if (manifest["kind"], manifest["metadata"]["name"]) in existing]
    assert {manifest["kind"] for manifest in plan.create} <= {"ControllerRevision"}, "it creates no pods"
    if SPECS[name][0] == "InferenceService":
        assert {kind for kind, _ in existing} >= {"Deployment", "Service"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SPECS)
def test_phase_and_reason_stay_as_earlier_releases_have_set_them(version: str, name: str) -> None:
    _, plan = take_over(version, name)
    reported = (
        old_plans(version)[name][1] if SPECS[name][0] != "InferenceService" else {"phase": "Ready", "reason": "Serving"}
    )
    if plan.status is not None:
        assert (plan.status["phase"], plan.status["reason"]) == (reported["phase"], reported["reason"])
    assert not plan.events
