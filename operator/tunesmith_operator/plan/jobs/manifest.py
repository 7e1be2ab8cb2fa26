"""The Job of one attempt: made once, never changed."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from tunesmith_api.run import World
from tunesmith_operator.plan.jobs.queueing import QUEUE_LABEL
from tunesmith_operator.plan.names import (
    ATTEMPT_ANNOTATION,
    FAILURES_ANNOTATION,
    TOKEN_ANNOTATION,
    child_metadata,
    job_name,
    uid_of,
)
from tunesmith_operator.plan.pods.template import PodPlan, build_template
from tunesmith_operator.plan.types import Raw, TokenFor


def job(resource: Raw, role: str, pod: PodPlan, failures: int, token: TokenFor, queue: str | None = None) -> Raw:
    """The manifest of the attempt that `pod.run` names. What comes after a failure is ours to say, not the Job's.

    `failures` is how many failures counted before it: kept here, so that nothing need be remembered. With a `queue` it
    is made suspended. Its pods then come one after the other: who was stopped has saved its state before another begins.
    """
    name = job_name(resource, role, pod.run.attempt)
    secret = token(uid_of(resource), name)
    annotations = {
        ATTEMPT_ANNOTATION: str(pod.run.attempt),
        FAILURES_ANNOTATION: str(failures),
        TOKEN_ANNOTATION: hashlib.sha256(secret.encode()).hexdigest(),
    }
    metadata = child_metadata(resource, name, role, annotations)
    held = {"suspend": True, "podReplacementPolicy": "Failed"} if queue else {}
    if queue:
        metadata["labels"] |= {QUEUE_LABEL: queue}
    made = build_template(replace(pod, progress_token=secret))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"backoffLimit": 0, **_indexed(pod.run.world), **held, "template": made},
    }


def _indexed(world: World | None) -> Raw:
    """Fields of an Indexed Job, for several pods. It succeeds with pod 0, so that a pod that hangs frees its devices (KEP-3998)."""
    if world is None or world.nodes == 1:
        return {}
    return {
        "completionMode": "Indexed",
        "completions": world.nodes,
        "parallelism": world.nodes,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
    }
