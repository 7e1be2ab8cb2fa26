"""The pods of one Job as a group: their order, how many are expected, and the root cause when several fail.

A Job has one pod, or one per completion index (KEP-2214, Indexed Job). Pod 0 reports for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tunesmith_api.failures import SECONDARY_RANK
from tunesmith_api.status import FAILURE_CHARACTERS, LastFailure
from tunesmith_operator.plan.names import annotation, is_deleting, metadata
from tunesmith_operator.plan.pods.read import containers, is_true
from tunesmith_operator.plan.types import Raw

INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
"""Set by the Job controller on each pod of an Indexed Job."""


def pod_count(job: Raw) -> int:
    """Number of pods that a Job runs in parallel."""
    return int((job.get("spec") or {}).get("completions") or 1)


def completion_index(pod: Raw) -> int:
    """Completion index of a pod; 0 for the pod of a plain Job."""
    text = annotation(pod, INDEX_ANNOTATION) or "0"
    return int(text) if text.isdecimal() else 0


def current_members(pods: Iterable[Raw]) -> tuple[Raw, ...]:
    """The newest pod of each completion index, in order. A pod that is being deleted counts until it is replaced."""
    newest: dict[int, Raw] = {}
    for pod in sorted(pods, key=_replacement_order):
        newest[completion_index(pod)] = pod
    return tuple(newest[index] for index in sorted(newest))


def leader(pods: Sequence[Raw]) -> Raw | None:
    """Pod 0, whose reports count for the whole Job."""
    return next((pod for pod in pods if completion_index(pod) == 0), None)


def has_started(pod: Raw) -> bool:
    """Whether a container of the pod has run."""
    return any(container.running or container.terminated for container in containers(pod))


def with_placement(job: Raw, pods: Sequence[Raw], trouble: LastFailure | None) -> LastFailure | None:
    """`trouble` of one pod, its message prefixed by how many of the Job's pods have a node: those hold devices and wait."""
    if trouble is None or pod_count(job) == 1:
        return trouble
    placed = sum(is_true(pod, "PodScheduled") or bool((pod.get("status") or {}).get("startTime")) for pod in pods)
    message = f"{placed} of {pod_count(job)} pods are placed: {trouble.message}"
    return trouble.model_copy(update={"message": message[:FAILURE_CHARACTERS]})


def root_cause(failures: Iterable[LastFailure]) -> LastFailure | None:
    """Root cause among the pods' failures: the earliest; secondary failures (lost peers) rank last."""
    return min(failures, key=lambda failure: (SECONDARY_RANK.get(failure.class_, 0), failure.time or "~"), default=None)


def _replacement_order(pod: Raw) -> tuple[bool, str]:
    """Sort key: pods that are being deleted come before their replacements."""
    return not is_deleting(pod), str(metadata(pod).get("creationTimestamp") or "")
