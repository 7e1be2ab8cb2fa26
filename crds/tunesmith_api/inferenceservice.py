"""InferenceService: serve a model behind an OpenAI API, and roll out only what passed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_api.base import (
    ApiModel,
    Duration,
    ModelUri,
    Name,
    ObjectName,
    Quantity,
    Rule,
    ShortText,
    Text,
    UriText,
    exactly_one,
    map_list,
)
from tunesmith_api.common import (
    ModelSource,
    ModelStatus,
    PodSettings,
    Reference,
    Resources,
    Status,
    Storage,
)
from tunesmith_api.grammar import Grammar


class Engine(StrEnum):
    """What computes the answers."""

    AUTO = "auto"
    LMDEPLOY = "lmdeploy"
    VLLM = "vllm"
    SGLANG = "sglang"
    TRANSFORMERS = "transformers"


class Promotion(ApiModel):
    """What a model must have passed before it is served."""

    eval_jobs: list[Reference] = Field(
        min_length=1,
        max_length=16,
        description="EvalJobs whose verdict on this very model must be Passed. Weights are told by their digest; a plain "
        "s3:// or file:// folder without a manifest by its URI only, whatever it contains by now.",
        json_schema_extra=map_list("name"),
    )


class Adapter(ApiModel):
    """A LoRA adapter served beside the base model, chosen by the request's model name."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("uri", "fineTuneJob"),)

    name: Name = Field(description="Model name that requests use.")
    uri: ModelUri | None = Field(None, description="s3://bucket/prefix of the adapter.")
    fine_tune_job: Reference | None = Field(None, description="The adapter that a FineTuneJob made.")


class RolloutStrategy(StrEnum):
    """How a new version takes over."""

    SURGE = "Surge"
    RECREATE = "Recreate"


class Rollout(ApiModel):
    """How a new version takes over."""

    strategy: RolloutStrategy = Field(
        RolloutStrategy.SURGE,
        description="Surge: new pods beside the old until they are ready; Recreate: no second set of devices. Default Surge.",
    )
    ready_timeout: Duration = Field(
        "30m",
        description="Time a new version may take until its first pod is ready, and from one pod to the next; then the last "
        "version that was ready is rolled back to. Default 30m.",
    )


METRIC_NAME = Grammar(
    pattern="^[A-Za-z_:][A-Za-z0-9_:./-]*$",
    problem="is not a metric name",
    advice="write letters, digits, _, :, ., / and -, beginning with a letter, such as queue_length",
    repairs=((" ", "_"),),
)


class PodMetric(ApiModel):
    """A metric of the pods, by its name in custom.metrics.k8s.io."""

    name: Annotated[str, Field(min_length=1, max_length=253), METRIC_NAME] = Field(
        description="Name of the metric, as the cluster's adapter calls it."
    )
    average: Quantity = Field(description="What to aim at, on the average of the pods, such as 4 or 500m.")


class Autoscaling(ApiModel):
    """A HorizontalPodAutoscaler on this resource, which then writes spec.replicas."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.maxReplicas < 1 || self.minReplicas <= self.maxReplicas",
            "minReplicas is at most maxReplicas: swap or change them",
        ),
        Rule(
            "!has(self.targetCpuPercent) || !has(self.metric)",
            "scale by targetCpuPercent or by metric: remove one of them",
        ),
    )

    min_replicas: int = Field(1, ge=1, le=1000, description="Pods at least. Default 1.")
    max_replicas: int = Field(ge=1, le=1000, description="Pods at most.")
    target_cpu_percent: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="CPU use to aim at, in percent of resources.cpu; needs metrics-server. Default 80, where metric is not set.",
    )
    metric: PodMetric | None = Field(
        None,
        description="A metric of the pods to scale by instead; needs an adapter for custom.metrics.k8s.io. Default: CPU use.",
    )


class DisruptionBudget(StrEnum):
    """Whether a PodDisruptionBudget keeps pods from being evicted."""

    AUTO = "Auto"
    NEVER = "Never"


class InferenceServiceSpec(ApiModel):
    """What to serve and how. A change rolls out a new version."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.model.inferenceService)",
            "model.inferenceService is for EvalJobs: name the model by uri or fineTuneJob",
        ),
    )

    model: ModelSource = Field(description="The model to serve.")
    promotion: Promotion | None = Field(
        None, description="Verdicts the model needs before it is served. Default: none."
    )
    engine: Engine = Field(
        Engine.AUTO,
        description="lmdeploy, vllm, sglang, transformers, or auto: the first of these that has an image in the chart's "
        "values and runs on the accelerator. Default auto.",
    )
    max_model_length: int | None = Field(
        None, ge=16, le=10485760, description="Tokens of prompt and answer together at most. Default: the model's."
    )
    replicas: int = Field(
        1,
        ge=0,
        le=1000,
        description="Pods. Default 1. The /scale subresource writes here: leave it out where an autoscaler does.",
    )
    autoscaling: Autoscaling | None = Field(None, description="Scale by load. Default: not.")
    disruption_budget: DisruptionBudget = Field(
        DisruptionBudget.AUTO,
        description="Auto: where there are several pods, one at a time may be evicted; Never: none of ours, for a "
        "PodDisruptionBudget of your own. Default Auto.",
    )
    adapters: list[Adapter] | None = Field(
        None,
        max_length=64,
        description="LoRA adapters served beside the base model.",
        json_schema_extra=map_list("name"),
    )
    rollout: Rollout = Field(default_factory=Rollout, description="How a new version takes over.")
    restart: Annotated[str, Field(max_length=63)] | None = Field(
        None,
        description="Any text: another one rolls the same model out anew, with the images and defaults that the operator has "
        "by then. Default: none.",
    )
    drain_seconds: int = Field(
        120,
        ge=10,
        le=3600,
        description="Time, in seconds, that a pod which is asked to stop may take to finish its answers. Default 120.",
    )
    api_key_secret: ObjectName | None = Field(
        None, description="Secret in this namespace with key api-key that requests must bear. Default: none asked for."
    )
    resources: Resources = Field(default_factory=Resources, description="What each pod asks for.")
    storage: Storage | None = Field(None, description="S3 endpoint and credentials. Default: the chart's store.")
    pod: PodSettings = Field(default_factory=PodSettings, description="Settings of the pods.")
    suspend: bool = Field(False, description="Remove the pods and keep the Service. Default false.")


class AdapterStatus(ApiModel):
    """What became of an adapter."""

    name: ShortText = Field(description="Model name that requests use.")
    uri: UriText | None = Field(None, description="Where it is.")
    digest: ShortText | None = Field(None, description="sha256 of its manifest, where known.")


class Pass(ApiModel):
    """A verdict that was Passed."""

    eval_job: Name = Field(description="Name of the EvalJob.")
    uri: UriText = Field(description="The model that it passed.")
    digest: ShortText | None = Field(None, description="sha256 of its manifest, where known.")


class RolledBack(ApiModel):
    """A version that did not get ready in time."""

    version: ShortText = Field(description="Hash of that version.")
    asked: ShortText = Field(description="Hash of what asked for it; it is not tried again until that changes.")
    time: str = Field(description="When it was given up (RFC 3339).", json_schema_extra={"format": "date-time"})
    message: Text = Field(description="Why it was not ready.")


class InferenceServiceStatus(Status):
    """What an InferenceService serves."""

    url: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Base URL of the OpenAI API within the cluster, ending in /v1."
    )
    replicas: int | None = Field(None, ge=0, description="Pods there are, ready or not.")
    ready_replicas: int | None = Field(None, ge=0, description="Pods that can answer.")
    selector: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Label selector of the pods, for autoscalers."
    )
    model: ModelStatus | None = Field(None, description="The model that is served now.")
    candidate: ModelStatus | None = Field(None, description="The model that the spec asks for, while it is not served.")
    adapters: list[AdapterStatus] | None = Field(
        None, max_length=64, description="The adapters that are served.", json_schema_extra=map_list("name")
    )
    passed: list[Pass] | None = Field(
        None,
        max_length=16,
        description="EvalJobs of spec.promotion that have passed the deployed model: it stays promoted though they be "
        "deleted, until one of them fails it.",
        json_schema_extra=map_list("evalJob"),
    )
    engine: ShortText | None = Field(None, description="The engine in use.")
    version: ShortText | None = Field(
        None,
        description="Hash of the version that was ready last; its pods are kept as ControllerRevision NAME-VERSION.",
    )
    rolled_back: RolledBack | None = Field(
        None, description="The version that the spec asks for, where it was given up for the one before it."
    )


class InferenceService(ApiModel):
    """Serves a model behind an OpenAI API, and rolls out only what passed the verdicts it asks for."""

    spec: InferenceServiceSpec = Field(description="What to serve and how.")
    status: InferenceServiceStatus | None = Field(None, description="What it serves.")
