"""Pods that train together: one attempt is one Indexed Job behind a headless Service, and ends as a whole.

With `backoffLimit: 0` the first pod that fails ends the Job and with it all pods, so a world is never mended: the next
attempt is a new one, with names of its own, and goes on from the last checkpoint. Pod 0 speaks for all of them.
Sources: KEP-2214 (Indexed Job: hostname JOB-INDEX), Service v1 (publishNotReadyAddresses), PodAffinityTerm v1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tunesmith_api.common import LastFailure, Resources
from tunesmith_api.failures import AFTERMATH
from tunesmith_api.finetunejob import FineTuneJobSpec, Parallelism
from tunesmith_api.run import World
from tunesmith_operator.plan.config import Together
from tunesmith_operator.plan.names import annotation, child_metadata, is_deleting, job_name, metadata, name_of, selector
from tunesmith_operator.plan.pods.read import containers, is_true
from tunesmith_operator.plan.types import Raw

INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
"""On each pod of an Indexed Job, by its controller."""
JOB_LABEL = "batch.kubernetes.io/job-name"
SHARED_MEMORY_PER_DEVICE = 1
"""GiB of /dev/shm: what NCCL and HCCL pass between the devices of a pod, with room to spare."""


def world(resource: Raw, spec: FineTuneJobSpec, role: str, attempt: int, patience: Together) -> World | None:
    """Who trains together in an attempt; None where that is one process alone."""
    nodes, processes = spec.parallelism.nodes, spec.resources.processes
    if nodes * processes == 1:
        return None
    host = {"host": f"{job_name(resource, role, attempt)}-0.{name(resource, role)}"} if nodes > 1 else {}
    return World(nodes=nodes, processes=processes, **host, **patience.model_dump())


def refusals(spec: FineTuneJobSpec) -> list[str]:
    """What is wrong with how a batch is shared among the devices."""
    batch, count = spec.training.global_batch_size, spec.parallelism.nodes * spec.resources.processes
    if batch % count == 0:
        return []
    below, above = batch // count * count, (batch // count + 1) * count
    wrong = f"training.globalBatchSize {batch} is not a multiple of the {count} devices (parallelism.nodes x resources.count)"
    return [f"{wrong}; use {f'{below} or ' if below else ''}{above}"]


def shared_memory(resources: Resources, together: World | None) -> str | None:
    """The size of /dev/shm where the spec names none: memory-backed for processes that talk to each other."""
    return f"{SHARED_MEMORY_PER_DEVICE * resources.processes}Gi" if together else None


def name(resource: Raw, role: str) -> str:
    """The name of the Service, which is the pods' subdomain."""
    return f"{name_of(resource)}-{role}-world"


def service(resource: Raw, role: str) -> Raw:
    """The headless Service by which pods find pod 0. They need its address while they are being started."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(resource, name(resource, role), role),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(resource, role),
            "ports": [{"name": "rendezvous", "port": World().port, "protocol": "TCP"}],
        },
    }


def affinity(parallelism: Parallelism, job: str) -> Raw | None:
    """What draws the pods of a Job to each other; None where that is not asked for."""
    near = parallelism.near
    if near is None:
        return None
    term = {"labelSelector": {"matchLabels": {JOB_LABEL: job}}, "topologyKey": near.topology_key}
    if near.required:
        return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    preferred = {"weight": 100, "podAffinityTerm": term}
    return {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}}


def completions(together: World | None) -> Raw:
    """The fields of a Job that make it Indexed, where there are several pods.

    The pod that speaks for all ends last: when it has succeeded, one that hangs is stopped and frees its devices (KEP-3998).
    """
    nodes = together.nodes if together else 1
    if nodes == 1:
        return {}
    first_is_enough = {"rules": [{"succeededIndexes": "0"}]}
    return {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "successPolicy": first_is_enough,
    }


def size(job: Raw) -> int:
    """How many pods a Job is to have."""
    return int((job.get("spec") or {}).get("completions") or 1)


def index(pod: Raw) -> int:
    """A pod's place; 0 for one that is alone."""
    text = annotation(pod, INDEX_ANNOTATION) or "0"
    return int(text) if text.isdecimal() else 0


def members(pods: Iterable[Raw]) -> tuple[Raw, ...]:
    """The pods of a Job, by index: of each the newest, and those that are being deleted only where none has come since."""
    newest: dict[int, Raw] = {}
    for pod in sorted(pods, key=_age):
        newest[index(pod)] = pod
    return tuple(newest[place] for place in sorted(newest))


def leader(pods: Sequence[Raw]) -> Raw | None:
    """The pod that speaks for all."""
    return next((pod for pod in pods if index(pod) == 0), None)


def has_begun(pod: Raw) -> bool:
    """Whether a container of a pod has run."""
    return any(one.running or one.terminated for one in containers(pod))


def of_all(job: Raw, pods: Sequence[Raw], trouble: LastFailure | None) -> LastFailure | None:
    """What keeps one of several pods from starting, with how many have a node: the others hold theirs and wait."""
    if trouble is None or size(job) == 1:
        return trouble
    placed = sum(is_true(pod, "PodScheduled") or bool((pod.get("status") or {}).get("startTime")) for pod in pods)
    return trouble.model_copy(update={"message": f"{placed} of {size(job)} pods are placed: {trouble.message}"[:2048]})


def first_cause(causes: Iterable[LastFailure]) -> LastFailure | None:
    """Why the first pod failed, of why each did: those that others drew with them say only that they lost them."""
    return min(causes, key=lambda one: (AFTERMATH.get(one.class_, 0), one.time or "~"), default=None)


def _age(pod: Raw) -> tuple[bool, str]:
    """Pods that a queue has stopped come before those that it has let start since."""
    return not is_deleting(pod), str(metadata(pod).get("creationTimestamp") or "")
