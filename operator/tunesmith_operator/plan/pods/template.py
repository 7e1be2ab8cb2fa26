"""Pod templates: restricted, with the RunSpec as a file, credentials by reference, and one container per verb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith_api.common import Accelerator as AcceleratorName
from tunesmith_api.common import PodSettings, Resources, is_reserved
from tunesmith_api.run import (
    INDEX_VARIABLE,
    POD_NAME_VARIABLE,
    PROGRESS_TOKEN_VARIABLE,
    RUN_ANNOTATION,
    SPEC_FILE,
    WORK_DIRECTORY,
    RunSpec,
    Verb,
)
from tunesmith_operator.plan.pods.accelerators import ACCELERATORS
from tunesmith_operator.plan.pods.members import INDEX_ANNOTATION
from tunesmith_operator.plan.pods.storage import CA_DIRECTORY, Access
from tunesmith_operator.plan.types import Raw

USER = 65532
"""The image's user, which is nobody on the host."""
GRACE_SECONDS = 120
"""Time to save a checkpoint, or to finish answers, after SIGTERM."""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": False, "AWS_SECRET_ACCESS_KEY": False, "AWS_SESSION_TOKEN": True}
"""Key of the credentials Secret, and variable of the same name -> whether it may be absent."""
API_KEY_VARIABLE = "TUNESMITH_API_KEY"
DEFAULT_CPU = "500m"
LIGHT_REQUESTS = {"cpu": "100m", "memory": "512Mi"}
"""What a stage needs that leaves the work to others: the engine beside it, or the pod after it."""


@dataclass(frozen=True)
class Stage:
    """One container: a verb, and what it needs."""

    verb: Verb
    image: str
    computes: bool = False
    """Whether it asks for the devices."""
    light: bool = False
    """Whether it only talks: to an engine in the same pod, or to the store."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the container, such as probes."""


@dataclass(frozen=True)
class PodPlan:
    """What a pod template is made from."""

    init: Sequence[Stage]
    main: Stage
    run: RunSpec
    resources: Resources
    settings: PodSettings
    access: Access
    pull_policy: str
    labels: Mapping[str, str]
    restart_policy: str
    progress_token: str | None = None
    api_key_secret: str | None = None
    subdomain: str | None = None
    """Name of the Service that gives the pods names."""
    affinity: Raw | None = None
    shared_memory: str | None = None
    """Size of a memory-backed /dev/shm where `resources` names none."""

    @property
    def shm(self) -> str | None:
        """Size of /dev/shm; None: what the container runtime gives."""
        size = self.resources.shared_memory or self.shared_memory
        return str(size) if size else None


def template(plan: PodPlan) -> Raw:
    """The pod template."""
    settings = plan.settings
    spec: Raw = {
        "restartPolicy": plan.restart_policy,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _security(plan.resources.accelerator),
        "initContainers": [_container(stage, plan) for stage in plan.init],
        "containers": [_container(plan.main, plan)],
        "volumes": _volumes(plan),
        "nodeSelector": settings.node_selector,
        "tolerations": [toleration.to_dict() for toleration in settings.tolerations or []],
        "serviceAccountName": settings.service_account_name,
        "imagePullSecrets": [secret.to_dict() for secret in settings.image_pull_secrets or []],
        "priorityClassName": settings.priority_class_name,
        "runtimeClassName": settings.runtime_class_name,
        "schedulerName": settings.scheduler_name,
        "subdomain": plan.subdomain,
        "affinity": plan.affinity,
    }
    return {
        "metadata": {
            "labels": {**(settings.labels or {}), **plan.labels},
            "annotations": {**(settings.annotations or {}), RUN_ANNOTATION: run_json(plan.run)},
        },
        "spec": {name: value for name, value in spec.items() if value not in (None, [], {})},
    }


def run_json(run: RunSpec) -> str:
    """The RunSpec as the pod reads it."""
    return run.model_dump_json(by_alias=True, exclude_none=True)


def run_of(pod_template: Raw) -> RunSpec | None:
    """The RunSpec that a pod template carries; None where it carries none that can be read."""
    text = ((pod_template.get("metadata") or {}).get("annotations") or {}).get(RUN_ANNOTATION)
    try:
        return RunSpec.model_validate_json(text) if text else None
    except ValueError:
        return None


def probe(path: str, port: int, period: int, failures: int) -> Raw:
    """An HTTP probe of the engine."""
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _security(accelerator: AcceleratorName) -> Raw:
    groups = list(ACCELERATORS[accelerator].groups)
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        **({"supplementalGroups": groups} if groups else {}),
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container(stage: Stage, plan: PodPlan) -> Raw:
    return {
        "name": stage.verb.value,
        "image": stage.image,
        "imagePullPolicy": plan.pull_policy,
        "args": [stage.verb.value, "--spec", SPEC_FILE],
        "env": _env(stage, plan),
        "resources": _resources(stage, plan.resources),
        "volumeMounts": _mounts(plan),
        "securityContext": _restricted(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **stage.extra,
    }


def _restricted() -> Raw:
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def _env(stage: Stage, plan: PodPlan) -> list[Raw]:
    """The user's variables, then the vendor's and ours.

    The kubelet expands $(NAME) by the variables before it, so that what comes first can tell nothing of the
    credentials; and what users wrote is not expanded at all.
    """
    accelerator = ACCELERATORS[plan.resources.accelerator]
    presets = accelerator.env if stage.computes else accelerator.env_without_devices
    ours: dict[str, Raw] = {
        "HOME": {"value": f"{WORK_DIRECTORY}/home"},
        POD_NAME_VARIABLE: {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    }
    if plan.run.world and plan.run.world.nodes > 1:
        ours[INDEX_VARIABLE] = {"valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX_ANNOTATION}']"}}}
    if plan.progress_token:
        ours[PROGRESS_TOKEN_VARIABLE] = {"value": plan.progress_token}
    if plan.access.credentials_secret:
        ours |= {name: _secret(plan.access.credentials_secret, name, may) for name, may in CREDENTIALS.items()}
    if plan.api_key_secret and stage.verb is Verb.SERVE:
        ours[API_KEY_VARIABLE] = _secret(plan.api_key_secret, "api-key", False)
    asked = {variable.name: variable.value for variable in plan.settings.env or [] if variable.name not in ours}
    theirs = {
        name: {"value": value.replace("$", "$$")} if value else {}
        for name, value in asked.items()
        if not is_reserved(name)
    }
    defaults = {name: {"value": value} for name, value in presets.items() if name not in theirs}
    return [{"name": name, **value} for name, value in {**theirs, **defaults, **ours}.items()]


def _secret(name: str, key: str, optional: bool) -> Raw:
    return {"valueFrom": {"secretKeyRef": {"name": name, "key": key, **({"optional": True} if optional else {})}}}


def _resources(stage: Stage, resources: Resources) -> Raw:
    if stage.light:
        return {"requests": dict(LIGHT_REQUESTS)}
    requests = {"cpu": str(resources.cpu or DEFAULT_CPU)}
    limits: dict[str, str] = {}
    if resources.memory:
        requests["memory"] = limits["memory"] = str(resources.memory)
    if resources.ephemeral_storage:
        requests["ephemeral-storage"] = str(resources.ephemeral_storage)
    if stage.computes:
        devices = ACCELERATORS[resources.accelerator].amounts(resources.devices)
        requests, limits = {**requests, **devices}, {**limits, **devices}
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _volumes(plan: PodPlan) -> list[Raw]:
    size = plan.resources.ephemeral_storage
    item = {"path": "run.json", "fieldRef": {"fieldPath": f"metadata.annotations['{RUN_ANNOTATION}']"}}
    volumes: list[Raw] = [
        {"name": "run", "downwardAPI": {"items": [item]}},
        {"name": "work", "emptyDir": {"sizeLimit": str(size)} if size else {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if plan.access.ca_bundle:
        ca = plan.access.ca_bundle
        items = [{"key": ca.key, "path": ca.key}]
        volumes.append({"name": "ca", "configMap": {"name": ca.name, "items": items}})
    if plan.shm:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": plan.shm}})
    return volumes


def _mounts(plan: PodPlan) -> list[Raw]:
    mounts: list[Raw] = [
        {"name": "run", "mountPath": SPEC_FILE.rpartition("/")[0], "readOnly": True},
        {"name": "work", "mountPath": WORK_DIRECTORY},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    if plan.access.ca_bundle:
        mounts.append({"name": "ca", "mountPath": CA_DIRECTORY, "readOnly": True})
    if plan.shm:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    return mounts
