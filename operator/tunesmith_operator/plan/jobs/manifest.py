"""The Job of one attempt. It is created once and never changed."""

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


def job_manifest(
    resource: Raw, label: str, pod: PodPlan, failures: int, token: TokenFor, queue: str | None = None
) -> Raw:
    """The Job of the attempt `pod.run.attempt`. Retries are up to the operator, so `backoffLimit` is 0.

    `failures` is the number of counted failures before it, which the Job's annotation keeps. With a `queue` the Job is created
    suspended, and a pod is replaced only after it has stopped, so that its checkpoint is complete.
    """
    name = job_name(resource, label, pod.run.attempt)
    secret = token(uid_of(resource), name)
    annotations = {
        ATTEMPT_ANNOTATION: str(pod.run.attempt),
        FAILURES_ANNOTATION: str(failures),
        TOKEN_ANNOTATION: hashlib.sha256(secret.encode()).hexdigest(),
    }
    metadata = child_metadata(resource, name, label, annotations)
    if queue:
        metadata["labels"] |= {QUEUE_LABEL: queue}
    queued = {"suspend": True, "podReplacementPolicy": "Failed"} if queue else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            **_indexed(pod.run.world),
            **queued,
            "template": build_template(replace(pod, progress_token=secret)),
        },
    }


def _indexed(world: World | None) -> Raw:
    """Fields of an Indexed Job, for several pods. It succeeds with pod 0, so that a hanging pod frees its devices (KEP-3998)."""
    if world is None or world.nodes == 1:
        return {}
    return {
        "completionMode": "Indexed",
        "completions": world.nodes,
        "parallelism": world.nodes,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
    }
