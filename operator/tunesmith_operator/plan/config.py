"""The operator's configuration: a YAML file that the chart writes, with camelCase names and no unknown keys."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from tunesmith_api.base import Endpoint, StoreUri
from tunesmith_api.common import ConfigMapKey
from tunesmith_api.run import World
from tunesmith_operator.plan.pods.accelerators import ACCELERATORS


class Settings(BaseModel):
    """Base of every block: a misspelt key is an error, not a default."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Engines(Settings):
    """Images of the engines that are not in the runtime image; absent: not to be had here."""

    lmdeploy: str | None = None
    vllm: str | None = None
    sglang: str | None = None


class Images(Settings):
    """What the pods run."""

    runtime: str
    engines: Engines = Field(default_factory=Engines)
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class StoreDefaults(Settings):
    """The default object storage, used where a resource names none of its own."""

    uri: StoreUri
    endpoint: Endpoint | None = None
    region: str = "us-east-1"
    path_style: bool | None = None
    """Absent: where there is an endpoint."""
    ca_bundle: ConfigMapKey | None = None
    credentials_secret: str | None = None


class PodPolicy(Settings):
    """What resources may ask for in spec.pod and spec.storage: names, or patterns with *. What is not listed is refused."""

    service_accounts: tuple[str, ...] = ("default",)
    credentials_secrets: tuple[str, ...] = ("tunesmith-*",)
    """Beside the default store's own."""
    endpoints: tuple[str, ...] = ()
    """Beside the default store's own."""
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
    """Rate of requests to the API server: `qps` a second on average, `burst` at once."""

    qps: float = Field(300, gt=0)
    burst: int = Field(600, ge=1)


class LeaderElection(Settings):
    """The Lease that one of several replicas holds. Times in seconds."""

    enabled: bool = True
    namespace: str | None = None
    """Default: the operator's own namespace."""
    name: str = "tunesmith-operator"
    lease_seconds: float = Field(15, gt=0)
    renew_seconds: float = Field(13, gt=0)
    retry_seconds: float = Field(2, gt=0)

    @model_validator(mode="after")
    def _a_leader_gives_up_before_another_may_lead(self) -> Self:
        if not self.lease_seconds > self.renew_seconds > self.retry_seconds:
            raise ValueError(
                "leaseSeconds must be more than renewSeconds, and that more than retrySeconds: "
                f"they are {self.lease_seconds:g}, {self.renew_seconds:g} and {self.retry_seconds:g}"
            )
        return self


class Kueue(Settings):
    """What of Kueue the operator may read, for the queue's own words in `waitingFor`. Queues work without."""

    enabled: bool = False
    """Whether it may list Workloads."""


class Together(Settings):
    """How long processes that train together wait for each other, in seconds (see tunesmith_api.run.World)."""

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
    store: StoreDefaults
    pod_policy: PodPolicy = Field(default_factory=PodPolicy)
    progress_url: str | None = None
    """Where pods push their progress; absent: they do not."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to watch; empty: all."""
    workers: int = Field(32, ge=1)
    """Resources looked at at a time. They wait for the API server most of the time; `client` is the bound."""
    client: ClientLimits = Field(default_factory=ClientLimits)
    leader_election: LeaderElection = Field(default_factory=LeaderElection)
    http: Http = Field(default_factory=Http)
    kueue: Kueue = Field(default_factory=Kueue)
    together: Together = Field(default_factory=Together)
    allow_trust_remote_code: bool = False
    """Whether resources may ask to run Python code that comes with a model."""
