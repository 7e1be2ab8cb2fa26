"""InferenceService: serves a model behind an OpenAI API, and rolls out only models that passed their evaluation."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_api.base import (
    SET_LIST,
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
from tunesmith_api.common import ModelSource, Reference, Storage
from tunesmith_api.grammar import Grammar
from tunesmith_api.pods import PodSettings, Resources
from tunesmith_api.status import ModelStatus, Status


class Engine(StrEnum):
    """Serving engine."""

    AUTO = "auto"
    LMDEPLOY = "lmdeploy"
    VLLM = "vllm"
    SGLANG = "sglang"
    TRANSFORMERS = "transformers"


class Promotion(ApiModel):
    """Evaluations that a model must pass before it is served."""

    eval_jobs: list[Reference] = Field(
        min_length=1,
        max_length=16,
        description="EvalJobs whose verdict on the same model must be Passed. A model is identified by the digest of its weights; an "
        "s3:// or file:// folder without a manifest by its URI only, even if its content changes.",
        json_schema_extra=map_list("name"),
    )


class Adapter(ApiModel):
    """A LoRA adapter served beside the base model, chosen by the request's model name."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("uri", "fineTuneJob"),)

    name: Name = Field(description="Model name that requests use.")
    uri: ModelUri | None = Field(None, description="s3://bucket/prefix of the adapter.")
    fine_tune_job: Reference | None = Field(None, description="FineTuneJob whose adapter to serve.")


class RolloutStrategy(StrEnum):
    """Replacement of the pods by a new version."""

    SURGE = "Surge"
    RECREATE = "Recreate"


class Rollout(ApiModel):
    """Replacement of the pods by a new version."""

    strategy: RolloutStrategy = Field(
        RolloutStrategy.SURGE,
        description="Surge: start new pods before old ones stop; Recreate: stop the old pods first, which needs no further devices. Default Surge.",
    )
    ready_timeout: Duration = Field(
        "30m",
        description="Maximum time until the first pod of a new version is ready, and then until each next pod. After it the "
        "operator rolls back to the last version that was ready. Default 30m.",
    )


METRIC_NAME = Grammar(
    pattern=r"^[A-Za-z_:][\w:./-]*$",
    problem="is not a metric name",
    advice="write letters, digits, _, :, ., / and -, beginning with a letter, such as queue_length",
    repairs=((" ", "_"),),
)


class PodMetric(ApiModel):
    """A metric of the pods, by its name in custom.metrics.k8s.io."""

    name: Annotated[str, Field(min_length=1, max_length=253), METRIC_NAME] = Field(
        description="Name of the metric in the cluster's metrics adapter."
    )
    average: Quantity = Field(description="Target for the average over the pods, such as 4 or 500m.")


class Autoscaling(ApiModel):
    """A HorizontalPodAutoscaler of the resource, which writes spec.replicas."""

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

    min_replicas: int = Field(1, ge=1, le=1000, description="Minimum number of pods. Default 1.")
    max_replicas: int = Field(ge=1, le=1000, description="Maximum number of pods.")
    target_cpu_percent: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Target CPU use, in percent of resources.cpu; needs metrics-server. Default 80 if metric is not set.",
    )
    metric: PodMetric | None = Field(
        None,
        description="Metric of the pods to scale by instead; needs an adapter for custom.metrics.k8s.io. Default: CPU use.",
    )


class DisruptionBudget(StrEnum):
    """Whether a PodDisruptionBudget limits evictions."""

    AUTO = "Auto"
    NEVER = "Never"


HOST = Grammar(
    pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$",
    problem="is not the name of a host",
    advice="write a name with a domain and without scheme, port and path, such as images.example.com",
    lower=True,
    repairs=(("https://", ""), ("http://", "")),
)


class ServedMedia(ApiModel):
    """What the model is sent beside text."""

    allowed_hosts: list[Annotated[str, Field(max_length=253), HOST]] | None = Field(
        None,
        max_length=64,
        description="Hosts, such as images.example.com, from whose https URLs the engines transformers and vllm read images. "
        "Default: none; requests send images as data: URLs.",
        json_schema_extra=SET_LIST,
    )


class InferenceServiceSpec(ApiModel):
    """Model and settings of an InferenceService. A change rolls out a new version."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.model.inferenceService)",
            "model.inferenceService is for EvalJobs: name the model by uri or fineTuneJob",
        ),
    )

    model: ModelSource = Field(description="The model to serve.")
    promotion: Promotion | None = Field(
        None, description="Evaluations that the model must pass before it is served. Default: none."
    )
    engine: Engine = Field(
        Engine.AUTO,
        description="lmdeploy, vllm, sglang, transformers, or auto: the first of these that has an image in the chart's "
        "values and runs on the accelerator. Default auto.",
    )
    max_model_length: int | None = Field(
        None, ge=16, le=10485760, description="Maximum tokens of prompt and answer together. Default: the model's."
    )
    media: ServedMedia | None = Field(None, description="Images of requests. Default: as data: URLs alone.")
    replicas: int = Field(
        1,
        ge=0,
        le=1000,
        description="Number of pods. Default 1. The /scale subresource writes it: leave it out if an autoscaler sets it.",
    )
    autoscaling: Autoscaling | None = Field(None, description="Scale by load. Default: no scaling.")
    disruption_budget: DisruptionBudget = Field(
        DisruptionBudget.AUTO,
        description="Auto: if there are several pods, evict one at a time; Never: create no PodDisruptionBudget, "
        "so that you can create your own. Default Auto.",
    )
    adapters: list[Adapter] | None = Field(
        None,
        max_length=64,
        description="LoRA adapters served beside the base model, each chosen by its name as the model of a request.",
        json_schema_extra=map_list("name"),
    )
    rollout: Rollout = Field(default_factory=Rollout, description="Replacement of the pods by a new version.")
    restart: Annotated[str, Field(max_length=63)] | None = Field(
        None,
        description="Any text. A change rolls out the same model again, with the operator's current images and "
        "defaults. Default: none.",
    )
    drain_seconds: int = Field(
        120,
        ge=10,
        le=3600,
        description="Maximum seconds in which a terminating pod finishes its answers. Default 120.",
    )
    api_key_secret: ObjectName | None = Field(
        None,
        description="Secret in this namespace with the key api-key, which requests must present. Default: no key is required.",
    )
    resources: Resources = Field(default_factory=Resources, description="Resources of each pod.")
    storage: Storage | None = Field(None, description="S3 endpoint and credentials. Default: the chart's store.")
    pod: PodSettings = Field(default_factory=PodSettings, description="Settings of the pods.")
    suspend: bool = Field(False, description="Delete the pods and keep the Service. Default false.")


class AdapterStatus(ApiModel):
    """Identity of a served adapter."""

    name: ShortText = Field(description="Model name that requests use.")
    uri: UriText | None = Field(None, description="Folder in the store.")
    digest: ShortText | None = Field(None, description="sha256 of its manifest, where known.")


class Pass(ApiModel):
    """An evaluation that the deployed model has passed."""

    eval_job: Name = Field(description="Name of the EvalJob.")
    uri: UriText = Field(description="URI of the model.")
    digest: ShortText | None = Field(None, description="sha256 of its manifest, where known.")


class RolledBack(ApiModel):
    """A version that was not ready in time and was rolled back."""

    version: ShortText = Field(description="Hash of that version.")
    asked: ShortText = Field(
        description="Hash of the fields that requested it; it is not tried again until they change."
    )
    time: str = Field(description="When it was rolled back (RFC 3339).", json_schema_extra={"format": "date-time"})
    message: Text = Field(description="Reason why it was not ready.")


class InferenceServiceStatus(Status):
    """State of an InferenceService."""

    url: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Base URL of the OpenAI API within the cluster, ending in /v1."
    )
    replicas: int | None = Field(None, ge=0, description="Number of pods, ready or not.")
    ready_replicas: int | None = Field(None, ge=0, description="Number of ready pods.")
    selector: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Label selector of the pods, for autoscalers."
    )
    model: ModelStatus | None = Field(None, description="Model that is served now.")
    candidate: ModelStatus | None = Field(None, description="Model that the spec requests, while it is not served.")
    adapters: list[AdapterStatus] | None = Field(
        None, max_length=64, description="Served adapters.", json_schema_extra=map_list("name")
    )
    passed: list[Pass] | None = Field(
        None,
        max_length=16,
        description="EvalJobs of spec.promotion that the deployed model has passed. It stays promoted if they are "
        "deleted, until an EvalJob gives it the verdict Failed.",
        json_schema_extra=map_list("evalJob"),
    )
    engine: ShortText | None = Field(None, description="The engine in use.")
    version: ShortText | None = Field(
        None,
        description="Hash of the version that was ready last; ControllerRevision NAME-VERSION records its pod template.",
    )
    rolled_back: RolledBack | None = Field(None, description="Version that the spec requests, if it was rolled back.")


class InferenceService(ApiModel):
    """Serves a model behind an OpenAI API, and rolls out only models that passed the evaluations of spec.promotion."""

    spec: InferenceServiceSpec = Field(description="Model and settings.")
    status: InferenceServiceStatus | None = Field(None, description="State of the service.")
