"""Pod templates: restricted, with the RunSpec as a file, credentials by reference, and one container for each verb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith_api.catalogue import CONFIG_MAP as CATALOGUE
from tunesmith_api.common import ConfigMapText
from tunesmith_api.pods import PodSettings, Resources, is_reserved
from tunesmith_api.run import (
    API_KEY_VARIABLE,
    CACHE_DIRECTORY,
    CACHE_LEASES_DIRECTORY,
    CATALOGUE_DIRECTORY,
    INDEX_VARIABLE,
    POD_NAME_VARIABLE,
    PROGRESS_TOKEN_VARIABLE,
    RUN_ANNOTATION,
    SPEC_FILE,
    TEMPLATE_FILE,
    WORK_DIRECTORY,
    RunSpec,
    Verb,
)
from tunesmith_api.tracking import CREDENTIALS as TRACKER_KEYS
from tunesmith_api.tracking import Tracking
from tunesmith_api.volumes import VOLUMES, claims_of
from tunesmith_operator.plan.pods.accelerators.base import Accelerator
from tunesmith_operator.plan.pods.members import INDEX_ANNOTATION
from tunesmith_operator.plan.pods.reward_code import (
    CODE_MOUNT,
    SOCKET_MOUNT,
    RewardContainer,
    reward_container,
    reward_volumes,
)
from tunesmith_operator.plan.pods.storage import CA_DIRECTORY, Access
from tunesmith_operator.plan.types import Raw

USER = 65532
"""User of the images: no user of the host has this number."""
GRACE_SECONDS = 120
"""Time after SIGTERM to save a checkpoint or to finish answers."""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": False, "AWS_SECRET_ACCESS_KEY": False, "AWS_SESSION_TOKEN": True}
"""Key of the credentials Secret, and variable of the same name -> whether it is optional."""
HUB_TOKENS = ("HF_TOKEN", "MODELSCOPE_API_TOKEN")
"""Keys of the Secret with the hubs' tokens, and variables of the same names."""
READS_SOURCES = frozenset({Verb.PREPARE, Verb.FETCH})
"""Verbs that read hubs and the volumes of claims: only their containers have the hubs' tokens and mount the volumes. The others
read what fetch has left in the work directory."""
REWARD_MOUNTS: Mapping[Verb, list[Raw]] = {
    **{verb: [CODE_MOUNT] for verb in READS_SOURCES},
    Verb.TRAIN: [SOCKET_MOUNT],
}
"""The code of a reward is read by the verbs that identify the run; the training asks for rewards at the socket."""
CACHE, CACHE_LEASES = "cache", "leases"
"""Name of the cache's volume, and the folder in it that all stages may write."""
DEFAULT_CPU = "500m"
LIGHT_REQUESTS = {"cpu": "100m", "memory": "512Mi"}
"""Requests of a stage that leaves the work to the engine beside it, or to a later pod."""
RESTORING_MEMORY = "2Gi"
"""Request of a stage that may have to restore the weights of a quantized model: its files and layers are restored one after the other."""


@dataclass(frozen=True)
class Stage:
    """One container: a verb, and what it needs."""

    verb: Verb
    image: str
    computes: bool = False
    """Whether it requests the devices."""
    light: bool = False
    """Whether it only exchanges data with an engine in the same pod, or with the store."""
    restores: bool = False
    """Whether it may have to restore the weights of a quantized model, which only the pod can know."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the container, such as probes."""


@dataclass(frozen=True)
class PodPlan:
    """The inputs of a pod template."""

    init: Sequence[Stage]
    main: Stage
    run: RunSpec
    resources: Resources
    accelerator: Accelerator
    plain_image: str
    """Runtime image for nodes without devices."""
    settings: PodSettings
    access: Access
    pull_policy: str
    labels: Mapping[str, str]
    restart_policy: str
    progress_token: str | None = None
    api_key_secret: str | None = None
    hub_token_secret: str | None = None
    """Secret with the tokens for hubs, which a namespace need not have."""
    tracking: Tracking | None = None
    """The tracker that the training reports to."""
    subdomain: str | None = None
    """Name of the Service that gives the pods DNS names."""
    affinity: Raw | None = None
    chat_template: ConfigMapText | None = None
    """Source of TEMPLATE_FILE."""
    shared_memory: str | None = None
    """Size of a memory-backed /dev/shm if `resources` has none."""
    cache_volume: Raw | None = None
    """Volume of the cache of model files."""
    reward_code: RewardContainer | None = None
    judge_secrets: Mapping[str, str] = field(default_factory=dict)
    """Variable of the training -> Secret with the API key of a judge."""


def build_template(plan: PodPlan) -> Raw:
    """Return the pod template (core/v1 PodTemplateSpec)."""
    settings = plan.settings
    spec: Raw = {
        "restartPolicy": plan.restart_policy,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _pod_security(plan.accelerator),
        "initContainers": [container for stage in plan.init for container in _init_containers(stage, plan)],
        "containers": [_container(plan.main, plan)],
        "volumes": [
            *(volume for volume, _ in (*_volumes(plan), *_claims(plan.run))),
            *([plan.cache_volume] if plan.cache_volume else []),
            *(reward_volumes(plan.reward_code, runs=bool(plan.init)) if plan.reward_code else []),
        ],
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
            "annotations": {**(settings.annotations or {}), RUN_ANNOTATION: run_spec_json(plan.run)},
        },
        "spec": {name: value for name, value in spec.items() if value not in (None, [], {})},
    }


def run_spec_json(run: RunSpec) -> str:
    """Return the RunSpec as the pod reads it."""
    return run.model_dump_json(by_alias=True, exclude_none=True)


def run_spec_of(template: Raw) -> RunSpec | None:
    """Return the RunSpec of a pod template; None if it has none, or none that this version can read."""
    text = ((template.get("metadata") or {}).get("annotations") or {}).get(RUN_ANNOTATION)
    try:
        return RunSpec.model_validate_json(text) if text else None
    except ValueError:
        return None


def http_probe(path: str, port: int, period: int, failures: int) -> Raw:
    """Return an HTTP probe of an engine, made every `period` seconds."""
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _container(stage: Stage, plan: PodPlan) -> Raw:
    return {
        "name": stage.verb.value,
        "image": stage.image,
        "imagePullPolicy": plan.pull_policy,
        "args": [stage.verb.value, "--spec", SPEC_FILE],
        "env": _env(stage, plan),
        "resources": _resources(stage, plan),
        "volumeMounts": [*(mount for _, mount in _volumes(plan)), *_own_mounts(stage, plan)],
        "securityContext": _container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **stage.extra,
    }


def _init_containers(stage: Stage, plan: PodPlan) -> list[Raw]:
    """Return the container of a stage; after fetch, that which runs the code of a reward until the pod ends."""
    container = _container(stage, plan)
    if not plan.reward_code or stage.verb is not Verb.FETCH:
        return [container]
    shared = {name: container[name] for name in ("imagePullPolicy", "securityContext", "terminationMessagePolicy")}
    return [container, reward_container(plan.reward_code, plan.accelerator.env_without_devices, shared)]


def _pod_security(accelerator: Accelerator) -> Raw:
    groups = list(accelerator.groups)
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        **({"supplementalGroups": groups} if groups else {}),
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_security() -> Raw:
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def _env(stage: Stage, plan: PodPlan) -> list[Raw]:
    """The user's variables, then the accelerator's and the hubs' tokens that the user has not set, then ours.

    The kubelet expands $(NAME) by the variables before it, so no variable of a user can read a credential. Values of users
    are not expanded at all.
    """
    ours = _operator_env(stage, plan)
    users: dict[str, Raw] = {
        variable.name: {"value": variable.value.replace("$", "$$")} if variable.value else {}
        for variable in plan.settings.env or []
        if variable.name not in ours and not is_reserved(variable.name)
    }
    tokens = {name: value for name, value in _hub_tokens(stage, plan).items() if name not in users}
    defaults = {name: {"value": value} for name, value in _vendor_env(stage, plan).items() if name not in users}
    return [{"name": name, **value} for name, value in {**users, **defaults, **tokens, **ours}.items()]


def _vendor_env(stage: Stage, plan: PodPlan) -> Mapping[str, str]:
    """The accelerator's variables: of the vendor, for processes that train together, and of the installation."""
    accelerator, world = plan.accelerator, plan.run.world
    if not stage.computes:
        return accelerator.env_without_devices
    return {**accelerator.env, **(accelerator.env_together(world) if world else {}), **accelerator.env_installed}


def _operator_env(stage: Stage, plan: PodPlan) -> dict[str, Raw]:
    env: dict[str, Raw] = {
        "HOME": {"value": f"{WORK_DIRECTORY}/home"},
        POD_NAME_VARIABLE: _pod_field("metadata.name"),
    }
    if plan.run.world and plan.run.world.nodes > 1:
        env[INDEX_VARIABLE] = _pod_field(f"metadata.annotations['{INDEX_ANNOTATION}']")
    if plan.progress_token:
        env[PROGRESS_TOKEN_VARIABLE] = {"value": plan.progress_token}
    if secret := plan.access.credentials_secret:
        env |= {name: _secret_key(secret, name, optional) for name, optional in CREDENTIALS.items()}
    if plan.api_key_secret and stage.verb is Verb.SERVE:
        env[API_KEY_VARIABLE] = _secret_key(plan.api_key_secret, "api-key")
    if stage.verb is Verb.TRAIN:
        env |= {variable: _secret_key(secret, "api-key") for variable, secret in plan.judge_secrets.items()}
    if plan.tracking and plan.tracking.secret and stage.verb is Verb.TRAIN:
        keys = TRACKER_KEYS[plan.tracking.to]
        env |= {name: _secret_key(plan.tracking.secret, name, optional=True) for name in keys}
    return env


def _hub_tokens(stage: Stage, plan: PodPlan) -> dict[str, Raw]:
    secret = plan.hub_token_secret if stage.verb in READS_SOURCES else None
    return {name: _secret_key(secret, name, optional=True) for name in HUB_TOKENS} if secret else {}


def _pod_field(path: str) -> Raw:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


def _secret_key(name: str, key: str, optional: bool = False) -> Raw:
    return {"valueFrom": {"secretKeyRef": {"name": name, "key": key, **({"optional": True} if optional else {})}}}


def _resources(stage: Stage, plan: PodPlan) -> Raw:
    restoring = {"memory": RESTORING_MEMORY} if stage.restores else {}
    if stage.light:
        return {"requests": LIGHT_REQUESTS | restoring}
    resources = plan.resources
    requests = {"cpu": str(resources.cpu or DEFAULT_CPU), **restoring}
    limits: dict[str, str] = {}
    if resources.memory:
        requests["memory"] = limits["memory"] = str(resources.memory)
    if resources.ephemeral_storage:
        requests["ephemeral-storage"] = str(resources.ephemeral_storage)
    if stage.computes:
        devices = plan.accelerator.amounts(resources.devices, resources.profile)
        requests, limits = {**requests, **devices}, {**limits, **devices}
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _volumes(plan: PodPlan) -> list[tuple[Raw, Raw]]:
    """Return the volumes that all containers mount, each with its mount."""
    run_file = {"path": "run.json", "fieldRef": {"fieldPath": f"metadata.annotations['{RUN_ANNOTATION}']"}}
    disk = plan.resources.ephemeral_storage
    shared_memory = plan.resources.shared_memory or plan.shared_memory
    volumes: list[tuple[Raw, Raw]] = [
        (
            {"name": "run", "downwardAPI": {"items": [run_file]}},
            {"name": "run", "mountPath": SPEC_FILE.rpartition("/")[0], "readOnly": True},
        ),
        (
            {"name": "work", "emptyDir": {"sizeLimit": str(disk)} if disk else {}},
            {"name": "work", "mountPath": WORK_DIRECTORY},
        ),
        ({"name": "tmp", "emptyDir": {}}, {"name": "tmp", "mountPath": "/tmp"}),
    ]
    if bundle := plan.access.ca_bundle:
        config_map = {"name": bundle.name, "items": [{"key": bundle.key, "path": bundle.key}]}
        mount = {"name": "ca", "mountPath": CA_DIRECTORY, "readOnly": True}
        volumes.append(({"name": "ca", "configMap": config_map}, mount))
    if plan.run.has_names:  # pods without names keep their template, and with it their version
        mount = {"name": "catalogue", "mountPath": CATALOGUE_DIRECTORY, "readOnly": True}
        volumes.append(({"name": "catalogue", "configMap": {"name": CATALOGUE, "optional": True}}, mount))
    if template := plan.chat_template:
        directory, _, file = TEMPLATE_FILE.rpartition("/")
        config_map = {"name": template.name, "items": [{"key": template.key, "path": file}]}
        mount = {"name": "template", "mountPath": directory, "readOnly": True}
        volumes.append(({"name": "template", "configMap": config_map}, mount))
    if shared_memory:
        memory = {"medium": "Memory", "sizeLimit": str(shared_memory)}
        volumes.append(({"name": "shm", "emptyDir": memory}, {"name": "shm", "mountPath": "/dev/shm"}))
    return volumes


def _own_mounts(stage: Stage, plan: PodPlan) -> list[Raw]:
    """Return the mounts that not all stages have."""
    claims = [mount for _, mount in _claims(plan.run)] if stage.verb in READS_SOURCES else []
    rewards = REWARD_MOUNTS.get(stage.verb, []) if plan.reward_code else []
    return claims + (_cache_mounts(stage) if plan.cache_volume else []) + rewards


def _cache_mounts(stage: Stage) -> list[Raw]:
    """Return the mounts of the cache: fetch fills it; the other stages read it, and renew the lease of the pod."""
    mount = {"name": CACHE, "mountPath": CACHE_DIRECTORY}
    if stage.verb is Verb.FETCH:
        return [mount]
    leases = {"name": CACHE, "mountPath": CACHE_LEASES_DIRECTORY, "subPath": CACHE_LEASES}
    return [{**mount, "readOnly": True}, leases]


def _claims(run: RunSpec) -> list[tuple[Raw, Raw]]:
    """Return the volumes of the claims in a run's URIs, each with its mount.

    They are read-only as a whole, so that the kubelet leaves owners and modes of the files as they are (fsGroup).
    """
    return [
        (
            {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}},
            {"name": f"claim-{number}", "mountPath": f"{VOLUMES}/{claim}", "readOnly": True},
        )
        for number, claim in enumerate(claims_of(run))
    ]
