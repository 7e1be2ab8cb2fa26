"""The operator's configuration: a YAML file that the chart writes, with camelCase keys. Unknown keys are errors."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from tunesmith_api.base import Endpoint, ObjectName, Quantity, StoreUri
from tunesmith_api.common import ConfigMapKey
from tunesmith_api.pods import VARIABLE_NAME
from tunesmith_api.pods import Accelerator as AcceleratorName
from tunesmith_api.run import Hub, HubName, World
from tunesmith_operator.plan.pods.accelerators import ACCELERATORS
from tunesmith_operator.plan.pods.accelerators.base import Accelerator

EXTENDED_RESOURCE = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
"""Name of a resource that a device plugin offers: a domain, and a name in it."""


class Settings(BaseModel):
    """Base of every block: refuses unknown keys, so that a misspelt key does not become a default."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Engines(Settings):
    """Images of the engines that the runtime image does not contain; None: the engine is not available."""

    lmdeploy: str | None = None
    vllm: str | None = None
    sglang: str | None = None


class Images(Settings):
    """Images of the pods."""

    runtime: str
    engines: Engines = Field(default_factory=Engines)
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class AcceleratorSettings(Settings):
    """What an installation has for the devices of a vendor. None: as without."""

    image: str | None = None
    """Runtime image of the pods with such devices."""
    engines: Engines = Field(default_factory=Engines)
    resource: Annotated[str, Field(pattern=EXTENDED_RESOURCE)] | None = None
    """Extended resource of one device."""
    groups: tuple[int, ...] | None = None
    """Groups that may open the device files of the nodes."""
    env: dict[Annotated[str, Field(pattern=VARIABLE_NAME.pattern)], str] = Field(default_factory=dict)
    """Environment of the containers that request such devices."""


class StoreDefaults(Settings):
    """Default object storage, for resources that name none of their own."""

    uri: StoreUri
    endpoint: Endpoint | None = None
    region: str = "us-east-1"
    path_style: bool | None = None
    """None: true if an endpoint is set."""
    ca_bundle: ConfigMapKey | None = None
    credentials_secret: str | None = None


class CacheSettings(Settings):
    """The cache of model files that pods share: a folder of each node, or a claim in each namespace. Neither: no cache."""

    host_path: str | None = None
    claim: ObjectName | None = None
    max_bytes: Quantity | None = None
    """None: the disk bounds it."""

    @property
    def is_enabled(self) -> bool:
        """Whether there is a cache."""
        return bool(self.host_path or self.claim)

    @model_validator(mode="after")
    def _is_a_single_folder(self) -> Self:
        if self.host_path and self.claim:
            raise ValueError("cache.hostPath and cache.claim: set one of them")
        if self.host_path is not None and not re.fullmatch("(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+", self.host_path):
            raise ValueError(
                f"cache.hostPath {self.host_path!r} is not a folder: write an absolute path below /, such as /var/cache/tunesmith"
            )
        return self


class HubDefaults(Settings):
    """Servers of the model hubs, and the Secret with the tokens for them."""

    order: tuple[HubName, ...] = Field(tuple(HubName), min_length=1)
    endpoints: dict[HubName, tuple[Endpoint, ...]] = Field(default_factory=dict)
    """Hub -> URLs of its servers; absent: its own."""
    token_secret: str | None = None

    @field_validator("endpoints")
    @classmethod
    def _without_empty_lists(cls, endpoints: dict[HubName, tuple[str, ...]]) -> dict[HubName, tuple[str, ...]]:
        return {name: urls for name, urls in endpoints.items() if urls}

    @property
    def for_pods(self) -> Hub | None:
        """The settings as pods read them; None if all are the defaults."""
        endpoints = {name: list(urls) for name, urls in self.endpoints.items()}
        hub = Hub(order=list(self.order), endpoints=endpoints)
        return None if hub == Hub() else hub


class PodPolicy(Settings):
    """Values that resources may use for their pods, storage and ConfigMaps: names, or patterns with *. Others are refused."""

    service_accounts: tuple[str, ...] = ("default",)
    credentials_secrets: tuple[str, ...] = ("tunesmith-*",)
    """In addition to that of the default store."""
    config_maps: tuple[str, ...] = ("tunesmith-*",)
    endpoints: tuple[str, ...] = ()
    """In addition to that of the default store."""
    judges: tuple[str, ...] = ()
    reward_code: bool = False
    """Whether code in a ConfigMap may reward completions, in a container of its own."""
    priority_classes: tuple[str, ...] = ()
    runtime_classes: tuple[str, ...] = ()
    schedulers: tuple[str, ...] = ("default-scheduler",)
    tolerations: tuple[str, ...] = tuple(
        accelerator.taint_keys for accelerator in ACCELERATORS.values() if accelerator.taint_keys
    )
    """Keys of taints."""
    labels: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()


class ClientLimits(Settings):
    """Rate of requests to the API server: `qps` per second on average, up to `burst` at a time."""

    qps: float = Field(300, gt=0)
    burst: int = Field(600, ge=1)


class LeaderElection(Settings):
    """Leader election among replicas by a Lease. Times in seconds."""

    enabled: bool = True
    namespace: str | None = None
    """Default: the operator's own namespace."""
    name: str = "tunesmith-operator"
    lease_seconds: float = Field(15, gt=0)
    renew_seconds: float = Field(13, gt=0)
    retry_seconds: float = Field(2, gt=0)

    @model_validator(mode="after")
    def _a_leader_stops_before_another_may_start(self) -> Self:
        if not self.lease_seconds > self.renew_seconds > self.retry_seconds:
            raise ValueError(
                "leaseSeconds must be more than renewSeconds, and that more than retrySeconds: "
                f"they are {self.lease_seconds:g}, {self.renew_seconds:g} and {self.retry_seconds:g}"
            )
        return self


class Kueue(Settings):
    """Whether the operator reads Kueue's Workloads, for the queue's message in `waitingFor`. Queues work without it."""

    enabled: bool = False
    """Whether the operator may list Workloads."""


class ProcessGroupTimeouts(Settings):
    """How long the processes of a training wait for each other, in seconds (see tunesmith_api.run.World)."""

    rendezvous_seconds: float = Field(World().rendezvous_seconds, gt=0)
    unreachable_seconds: float = Field(World().unreachable_seconds, gt=0)
    collective_seconds: float = Field(World().collective_seconds, gt=0)


class Http(Settings):
    """Ports the operator listens on."""

    health_port: int = Field(8080, ge=0, le=65535)
    """/metrics, /livez and /readyz."""
    progress_port: int = Field(8082, ge=0, le=65535)


class OperatorConfig(Settings):
    """The whole file."""

    images: Images
    accelerators: dict[AcceleratorName, AcceleratorSettings] = Field(default_factory=dict)
    store: StoreDefaults
    hub: HubDefaults = Field(default_factory=HubDefaults)
    pod_policy: PodPolicy = Field(default_factory=PodPolicy)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    progress_url: str | None = None
    """Where pods push their progress; None: they do not."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to watch; empty: all."""
    workers: int = Field(32, ge=1)
    """Resources reconciled at a time. They wait for the API server most of the time, so `client` is the effective bound."""
    client: ClientLimits = Field(default_factory=ClientLimits)
    leader_election: LeaderElection = Field(default_factory=LeaderElection)
    http: Http = Field(default_factory=Http)
    kueue: Kueue = Field(default_factory=Kueue)
    together: ProcessGroupTimeouts = Field(default_factory=ProcessGroupTimeouts)
    allow_trust_remote_code: bool = False
    """Whether resources may run Python code that comes with a model."""

    def images_on(self, accelerator: AcceleratorName) -> Images:
        """Return the images of the pods with such devices."""
        settings = self.accelerators.get(accelerator, AcceleratorSettings())
        engines = self.images.engines.model_copy(update=settings.engines.model_dump(exclude_none=True))
        return self.images.model_copy(update={"runtime": settings.image or self.images.runtime, "engines": engines})

    def accelerator(self, name: AcceleratorName) -> Accelerator:
        """Return what pods with such devices need in this installation."""
        settings, usual = self.accelerators.get(name, AcceleratorSettings()), ACCELERATORS[name]
        groups = usual.groups if settings.groups is None else settings.groups
        resource = settings.resource or usual.resource
        return replace(usual, resource=resource, groups=groups, env_installed=settings.env)
