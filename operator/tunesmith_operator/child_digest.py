"""Digest of the state of a child that a plan depends on: an event that leaves it unchanged wakes no resource."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from tunesmith_operator.codec import encode
from tunesmith_operator.plan.names import is_deleting
from tunesmith_operator.plan.types import Raw


def child_digest(kind: str, child: Raw) -> str:
    """Digest of the child's relevant state; empty if it only changed as expected."""
    metadata, status = child["metadata"], child.get("status") or {}
    state = RELEVANT_STATE.get(kind, _everything)(child.get("spec") or {}, status)
    if state is None and not is_deleting(child):
        return ""
    return fingerprint(
        [[metadata.get(name) for name in ("uid", "deletionTimestamp", "labels", "ownerReferences")], state]
    )


def fingerprint(data: object) -> str:
    """Digest of JSON data as the API server sends it, for comparison within this process: cheaper than a spec's hash."""
    return hashlib.sha256(encode(data)).hexdigest()[:16]


def _job(spec: Raw, status: Raw) -> object:
    """Drop the Job controller's internal counters. That it has created all pods is expected."""
    relevant = {name: value for name, value in status.items() if name not in ("ready", "uncountedTerminatedPods")}
    all_active = relevant.get("active") == (spec.get("completions") or 1)
    is_expected = not relevant or (all_active and relevant.keys() <= {"active", "startTime", "terminating"})
    return None if is_expected and not spec.get("suspend") else [spec.get("suspend"), relevant]


def _pod(_: Raw, status: Raw) -> object:
    """A pod's spec is constant. That the pod is scheduled is expected; the kubelet's reports follow."""
    is_starting = status.keys() <= {"phase", "qosClass", "conditions"} and all(
        condition["status"] == "True" for condition in status.get("conditions") or ()
    )
    return None if is_starting and status.get("phase") == "Pending" else status


def _conditions(spec: Raw, status: Raw) -> object:
    """Drop the figures, which an autoscaler writes every 15 seconds under changing load."""
    conditions = status.get("conditions") or ()
    return [spec, [[condition.get(name) for name in ("type", "status", "reason")] for condition in conditions]]


def _everything(spec: Raw, status: Raw) -> object:
    return [spec, status]


RELEVANT_STATE: Mapping[str, Callable[[Raw, Raw], object]] = {
    "Job": _job,
    "Pod": _pod,
    "HorizontalPodAutoscaler": _conditions,
    "PodDisruptionBudget": _conditions,
}
"""Kind -> the part of spec and status that a plan depends on; None if the state is the expected one."""
