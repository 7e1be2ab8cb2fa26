"""What of a child a plan goes by: an event that changes nothing of it is worth no look."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from tunesmith_operator.client import Raw
from tunesmith_operator.codec import encode
from tunesmith_operator.plan.names import is_deleting


def said(kind: str, child: Raw) -> str:
    """Digest of what a child says; empty where that is what was to come of it."""
    metadata, status = child["metadata"], child.get("status") or {}
    words = SAID.get(kind, _everything)(child.get("spec") or {}, status)
    if words is None and not is_deleting(child):
        return ""
    return fingerprint(
        [[metadata.get(name) for name in ("uid", "deletionTimestamp", "labels", "ownerReferences")], words]
    )


def fingerprint(data: object) -> str:
    """The same for the same JSON as the API server sends it, in this process; a tenth of the work of a spec's hash."""
    return hashlib.sha256(encode(data)).hexdigest()[:16]


def _job(spec: Raw, status: Raw) -> object:
    """Without what the Job controller notes for itself; that it has made the pods of a Job is what was to come."""
    notes = {name: value for name, value in status.items() if name not in ("ready", "uncountedTerminatedPods")}
    all_there = notes.get("active") == (spec.get("completions") or 1)
    as_made = not notes or (all_there and notes.keys() <= {"active", "startTime", "terminating"})
    return None if as_made and not spec.get("suspend") else [spec.get("suspend"), notes]


def _pod(_: Raw, status: Raw) -> object:
    """A pod's spec stays; that it has a node is what was to come, until the kubelet says more."""
    on_its_way = status.keys() <= {"phase", "qosClass", "conditions"} and all(
        one["status"] == "True" for one in status.get("conditions") or ()
    )
    return None if on_its_way and status.get("phase") == "Pending" else status


def _conditions(spec: Raw, status: Raw) -> object:
    """An autoscaler writes its figures every 15 seconds while load moves."""
    conditions = status.get("conditions") or ()
    return [spec, [[one.get(name) for name in ("type", "status", "reason")] for one in conditions]]


def _everything(spec: Raw, status: Raw) -> object:
    return [spec, status]


SAID: Mapping[str, Callable[[Raw, Raw], object]] = {
    "Job": _job,
    "Pod": _pod,
    "HorizontalPodAutoscaler": _conditions,
    "PodDisruptionBudget": _conditions,
}
"""By kind: what its spec and status say that a plan goes by; None: nothing but what was to come."""
