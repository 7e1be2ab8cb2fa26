"""Digests change with the state that a plan depends on, and with nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tunesmith_operator.child_digest import child_digest

METADATA = {"namespace": "team", "name": "support", "uid": "u1", "resourceVersion": "1", "labels": {"a": "b"}}
CHILDREN: dict[str, dict[str, Any]] = {
    "HorizontalPodAutoscaler": {
        "metadata": METADATA,
        "spec": {"maxReplicas": 4},
        "status": {
            "currentMetrics": [{"resource": {"current": {"averageUtilization": 50}}}],
            "conditions": [{"type": "Active", "status": "True", "reason": "Valid", "message": "50 %"}],
        },
    },
    "Job": {"metadata": METADATA, "spec": {}, "status": {"failed": 1, "ready": 0, "uncountedTerminatedPods": {}}},
    "Pod": {
        "metadata": {**METADATA, "finalizers": ["batch.kubernetes.io/job-tracking"]},
        "status": {"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]},
    },
    "Deployment": {"metadata": METADATA, "spec": {"replicas": 2}, "status": {"readyReplicas": 1}},
}


def changed(kind: str, path: str, value: Any) -> dict[str, Any]:
    thing = copy.deepcopy(CHILDREN[kind])
    *above, name = path.split(".")
    where = thing
    for part in above:
        where = where[int(part)] if part.isdigit() else where[part]
    where[name] = value
    return thing


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("HorizontalPodAutoscaler", "status.currentMetrics", []),
        ("HorizontalPodAutoscaler", "status.conditions.0.message", "70 %"),
        ("Job", "status.ready", 1),
        ("Job", "status.uncountedTerminatedPods", {"succeeded": ["uid"]}),
        ("Pod", "metadata.finalizers", []),
        *((kind, "metadata.resourceVersion", "2") for kind in CHILDREN),
    ],
)
def test_state_that_no_plan_depends_on_leaves_the_digest_unchanged(kind: str, path: str, value: Any) -> None:
    assert child_digest(kind, changed(kind, path, value)) == child_digest(kind, CHILDREN[kind])


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("HorizontalPodAutoscaler", "spec.maxReplicas", 9),
        ("HorizontalPodAutoscaler", "status.conditions.0.status", "False"),
        ("Job", "status.conditions", [{"type": "Complete", "status": "True"}]),
        ("Job", "status.failed", 2),
        ("Job", "spec.suspend", True),
        ("Pod", "status.phase", "Succeeded"),
        ("Pod", "status.containerStatuses", [{"name": "train"}]),
        ("Deployment", "spec.replicas", 3),
        ("Deployment", "status.readyReplicas", 2),
        *((kind, "metadata.uid", "u2") for kind in CHILDREN),
        *((kind, "metadata.deletionTimestamp", "now") for kind in CHILDREN),
        *((kind, "metadata.labels", {}) for kind in CHILDREN),
    ],
)
def test_state_that_a_plan_depends_on_changes_the_digest(kind: str, path: str, value: Any) -> None:
    assert child_digest(kind, changed(kind, path, value)) != child_digest(kind, CHILDREN[kind])


ON_A_NODE = {"phase": "Pending", "qosClass": "Burstable", "conditions": [{"type": "PodScheduled", "status": "True"}]}
NOWHERE = {**ON_A_NODE, "conditions": [{"type": "PodScheduled", "status": "False"}]}


@pytest.mark.parametrize(
    ("kind", "status", "is_relevant"),
    [
        ("Job", {}, False),
        ("Job", {"active": 1, "startTime": "now", "ready": 0, "uncountedTerminatedPods": {}}, False),
        ("Job", {"active": 2, "startTime": "now"}, True),
        ("Job", {"startTime": "now", "uncountedTerminatedPods": {}}, True),
        ("Job", {"active": 1, "startTime": "now", "failed": 1}, True),
        ("Pod", {"phase": "Pending"}, False),
        ("Pod", ON_A_NODE, False),
        ("Pod", NOWHERE, True),
        ("Pod", {**ON_A_NODE, "startTime": "now"}, True),
        ("Pod", {**ON_A_NODE, "phase": "Failed"}, True),
    ],
)
def test_the_digest_is_empty_for_expected_state_only(kind: str, status: dict[str, Any], is_relevant: bool) -> None:
    assert bool(child_digest(kind, {"metadata": METADATA, "spec": {}, "status": status})) == is_relevant


def test_a_suspended_job_changes_the_digest() -> None:
    assert child_digest("Job", {"metadata": METADATA, "spec": {"suspend": True}})


def test_a_child_that_is_being_deleted_changes_the_digest() -> None:
    assert child_digest("Job", {"metadata": {**METADATA, "deletionTimestamp": "now"}, "spec": {}})
