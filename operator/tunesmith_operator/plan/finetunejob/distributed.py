"""Several pods that train as one process group: an Indexed Job behind a headless Service.

With `backoffLimit: 0` the first pod that fails ends the Job and all its pods. The next attempt is a new Job with new names,
which resumes from the last checkpoint. Pod 0 reports for all pods.
Sources: KEP-2214 (Indexed Job: hostname JOB-INDEX), Service v1 (publishNotReadyAddresses), PodAffinityTerm v1.
"""

from __future__ import annotations

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.pods import Resources
from tunesmith_api.run import World
from tunesmith_api.training import Parallelism
from tunesmith_operator.plan.config import ProcessGroupTimeouts
from tunesmith_operator.plan.names import child_metadata, job_name, name_of, selector
from tunesmith_operator.plan.types import Raw

JOB_LABEL = "batch.kubernetes.io/job-name"
SHARED_MEMORY_PER_DEVICE = 1
"""GiB of /dev/shm for the buffers of NCCL and HCCL between the devices of a pod, with a margin."""


def world(
    resource: Raw, spec: FineTuneJobSpec, role: str, attempt: int, patience: ProcessGroupTimeouts
) -> World | None:
    """The process group of an attempt; None for a single process."""
    nodes, processes = spec.parallelism.nodes, spec.resources.processes
    if nodes * processes == 1:
        return None
    host = {"host": f"{job_name(resource, role, attempt)}-0.{service_name(resource, role)}"} if nodes > 1 else {}
    return World(nodes=nodes, processes=processes, **host, **patience.model_dump())


def shared_memory(resources: Resources, together: World | None) -> str | None:
    """The default size of /dev/shm. None for a single process, which shares no memory."""
    return f"{SHARED_MEMORY_PER_DEVICE * resources.processes}Gi" if together else None


def service_name(resource: Raw, role: str) -> str:
    """The name of the Service, which is the pods' subdomain."""
    return f"{name_of(resource)}-{role}-world"


def service(resource: Raw, role: str) -> Raw:
    """The headless Service by which pods find pod 0. It publishes addresses before the pods are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(resource, service_name(resource, role), role),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(resource, role),
            "ports": [{"name": "rendezvous", "port": World().port, "protocol": "TCP"}],
        },
    }


def affinity(parallelism: Parallelism, job: str) -> Raw | None:
    """The affinity of spec.parallelism.near between the pods of a Job; None without it."""
    near = parallelism.near
    if near is None:
        return None
    term = {"labelSelector": {"matchLabels": {JOB_LABEL: job}}, "topologyKey": near.topology_key}
    if near.required:
        return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    preferred = {"weight": 100, "podAffinityTerm": term}
    return {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}}
