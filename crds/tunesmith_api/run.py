"""What operator and runtime say to each other: the spec file a pod gets, and the report it leaves.

The operator writes a `RunSpec` as JSON into the annotation `tunesmith.dev/run` of the pod template; the downward API
shows it to every container as the file `SPEC_FILE`. Each container leaves a `RunReport` as JSON in its termination
message (at most TERMINATION_MESSAGE_BYTES) and exits with 0 or an exit code of `tunesmith_api.failures`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field, field_validator, model_validator

from tunesmith_api.base import ApiModel, UriText
from tunesmith_api.common import Artifact
from tunesmith_api.evaljob import EvalJobSpec, Result
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec, LastCheckpoint, Metrics, Rows
from tunesmith_api.inferenceservice import InferenceServiceSpec

RUN_ANNOTATION = "tunesmith.dev/run"
SPEC_FILE = "/etc/tunesmith/run.json"
WORK_DIRECTORY = "/work"
TERMINATION_MESSAGE_BYTES = 3072
"""The kubelet cuts a message at 4,096 bytes, and those of a pod at 12 KiB shared evenly by its containers
(kubernetes/pkg/kubelet/status/status_manager.go). Our pods have three; a fourth may be injected into them."""

PROGRESS_TOKEN_VARIABLE = "TUNESMITH_PROGRESS_TOKEN"
"""Environment variable with the bearer token that is good for this Job's progress only."""
POD_NAME_VARIABLE = "TUNESMITH_POD"
INDEX_VARIABLE = "TUNESMITH_INDEX"
"""Environment variable with a pod's place among those that train together, from 0; absent where it is alone."""
ENGINE_PORT = 8000
"""Port of the OpenAI API in a pod that serves, and of /health, whatever the engine."""
READY_PORT = 8001
"""Port of /ready in a pod that serves, whatever the engine: true from the first generated token on."""


class Verb(StrEnum):
    """What the runtime can do; each is one container of a pod."""

    PREPARE = "prepare"
    FETCH = "fetch"
    TRAIN = "train"
    EXPORT = "export"
    EVALUATE = "evaluate"
    SERVE = "serve"


class Store(ApiModel):
    """The object storage of a run, resolved: the resource's `storage` over the chart's default store.

    Credentials are not in it: they reach the container as AWS_* variables from a Secret, or by the ServiceAccount.
    """

    uri: UriText = Field(
        description="Root for imported models and runs that name no output: s3://bucket/prefix or file:///path."
    )
    endpoint: str | None = Field(None, description="URL of the S3 API; absent means AWS.")
    region: str = Field("us-east-1", description="Region name.")
    path_style: bool = Field(False, description="Address buckets as endpoint/bucket.")
    ca_bundle: str | None = Field(None, description="Path, in the container, of the certificates to trust.")


class ResolvedModel(ApiModel):
    """A model with every reference resolved to a URI."""

    uri: str = Field(description="hf://, ms://, s3:// or file:// URI of weights, or of an adapter where base is set.")
    digest: str | None = Field(None, description="sha256 of its manifest, where it is an artifact of ours.")
    base: ResolvedModel | None = Field(None, description="For an adapter: the model it goes on.")
    trust_remote_code: bool = Field(False, description="Whether Python code of the model may run.")

    @property
    def is_on_hub(self) -> bool:
        """Whether it must be imported into the store before it is read."""
        return self.uri.startswith(("hf://", "ms://"))


class ModelRole(StrEnum):
    """What a run uses a model for."""

    BASE = "base"
    """The weights that are tuned, scored or served, without an adapter."""
    ADAPTER = "adapter"
    """The adapter on the base that is scored or served."""
    REFERENCE = "reference"
    REWARD = "reward"
    TEACHER = "teacher"
    LABELLER = "labeller"


def models_by_role(model: ResolvedModel) -> dict[ModelRole, ResolvedModel]:
    """The roles that one resolved model fills: base, or base and adapter."""
    if model.base is None:
        return {ModelRole.BASE: model}
    return {ModelRole.BASE: model.base, ModelRole.ADAPTER: model.model_copy(update={"base": None})}


class NamedAdapter(ApiModel):
    """An adapter that is served under a name of its own."""

    name: str = Field(description="Model name that requests use.")
    model: ResolvedModel = Field(description="The adapter; its base is the served model.")


class World(ApiModel):
    """The processes that train together: one for each device of each pod. Process 0 of pod 0 leads."""

    nodes: int = Field(1, ge=1, description="Pods.")
    processes: int = Field(1, ge=1, description="Processes in each pod.")
    host: str = Field("127.0.0.1", description="DNS name of pod 0.")
    port: int = Field(29500, ge=1, le=65535, description="Port at which its process 0 is met.")
    rendezvous_seconds: float = Field(86400, gt=0, description="How long a process waits for the others to begin.")
    unreachable_seconds: float = Field(
        300, gt=0, description="How long pod 0 may have an address and let no packet through."
    )
    collective_seconds: float = Field(
        3600, gt=0, description="How long a process waits for the others in one operation, such as a checkpoint."
    )

    @property
    def size(self) -> int:
        """The number of processes."""
        return self.nodes * self.processes


class RunSpec(ApiModel):
    """All that a pod needs to know."""

    kind: str = Field(description="FineTuneJob, EvalJob or InferenceService.")
    name: str = Field(description="Name of the resource; an InferenceService is known by it in the OpenAI API.")
    namespace: str = Field(description="Namespace of the resource.")
    uid: str = Field(description="UID of the resource.")
    attempt: int = Field(
        1, ge=1, description="From 1; the runtime resumes from the last checkpoint whatever the number."
    )
    role: str | None = Field(None, description="For an EvalJob: model or baseline.")
    spec: dict[str, Any] = Field(description="The resource's spec, with defaults, as the API server holds it.")
    spec_hash: str = Field(description="See tunesmith_api.hashing.spec_hash.")
    store: Store = Field(description="Object storage.")
    models: dict[ModelRole, ResolvedModel] = Field(description="The models of the run by role; base is always there.")
    adapters: list[NamedAdapter] = Field(default_factory=list, description="For an InferenceService.")
    output_uri: str = Field(description="Folder below which the run's own folder is made.")
    progress_url: str | None = Field(None, description="Where to push progress; absent: nowhere.")
    world: World | None = Field(None, description="Who trains together; absent: one process alone.")

    @model_validator(mode="before")
    @classmethod
    def _accept_one_model(cls, data: Any) -> Any:
        """Read the field `model` of releases up to 0.2.0, which recorded templates of running services still have."""
        if not isinstance(data, dict) or "models" in data or "model" not in data:
            return data
        return {**data, "models": models_by_role(ResolvedModel.model_validate(data["model"]))}

    @field_validator("models")
    @classmethod
    def _has_a_base(cls, models: dict[ModelRole, ResolvedModel]) -> dict[ModelRole, ResolvedModel]:
        if ModelRole.BASE not in models:
            raise ValueError("no model with the role base")
        return models

    @property
    def base(self) -> ResolvedModel:
        """The model in the role base."""
        return self.models[ModelRole.BASE]

    @property
    def subject(self) -> ResolvedModel:
        """The model that is tuned, scored or served: the base, or the adapter with its base."""
        adapter = self.models.get(ModelRole.ADAPTER)
        return adapter.model_copy(update={"base": self.base}) if adapter else self.base

    def fine_tune_job(self) -> FineTuneJobSpec:
        """The typed spec of a FineTuneJob."""
        return FineTuneJobSpec.model_validate(self.spec)

    def eval_job(self) -> EvalJobSpec:
        """The typed spec of an EvalJob."""
        return EvalJobSpec.model_validate(self.spec)

    def inference_service(self) -> InferenceServiceSpec:
        """The typed spec of an InferenceService."""
        return InferenceServiceSpec.model_validate(self.spec)


class Outcome(StrEnum):
    """How a verb ended."""

    SUCCEEDED = "Succeeded"
    ADOPTED = "Adopted"
    PREEMPTED = "Preempted"
    FAILED = "Failed"


class FailureReport(ApiModel):
    """Why a verb failed."""

    class_: FailureClass = Field(alias="class", description="The kind of failure.")
    message: str = Field(description="What happened and where: file, line, URI.")
    hint: str | None = Field(None, description="What to change, where the table's hint can be bettered.")
    log_tail: str | None = Field(None, description="Last lines of the log, at most 1,500 characters.")


class RunReport(ApiModel):
    """What a container leaves in its termination message. The last container's report is the run's result."""

    verb: Verb = Field(description="Which verb.")
    outcome: Outcome = Field(description="How it ended.")
    run_uri: str | None = Field(None, description="The run's folder in the store.")
    model_uri: str | None = Field(
        None, description="prepare, fetch: where the model was read from in the store (after an import)."
    )
    model_digest: str | None = Field(None, description="prepare, fetch, evaluate: sha256 of the model's manifest.")
    artifacts: list[Artifact] | None = Field(None, description="train, export, evaluate: what was made.")
    rows: Rows | None = Field(None, description="train: what became of the rows.")
    metrics: Metrics | None = Field(None, description="train, export: figures of the run.")
    results: list[Result] | None = Field(None, description="evaluate: the scores of this model.")
    resumed_from_step: int | None = Field(None, description="train: the step it went on from.")
    last_checkpoint: LastCheckpoint | None = Field(None, description="train: the newest state in the store.")
    failure: FailureReport | None = Field(None, description="Why it failed.")


class ProgressReport(ApiModel):
    """Body of `POST {progress_url}`: how far a pod is. The token in the Authorization header says whose it is."""

    stage: str = Field(description="fetch, train, export; for an evaluation the benchmark.")
    step: int = Field(0, ge=0, description="Steps (or questions) done.")
    total_steps: int = Field(0, ge=0, description="Steps (or questions) in all.")
    epoch: float | None = Field(None, description="Passes over the data done.")
    loss: float | None = Field(None, description="Latest training loss.")
    eval_loss: float | None = Field(None, description="Latest validation loss.")
    learning_rate: float | None = Field(None, description="Current learning rate.")
    tokens_per_second: float | None = Field(None, description="Tokens trained on per second.")
    eta_seconds: int | None = Field(None, description="Seconds left.")
    resumed_from_step: int | None = Field(None, description="The step this attempt went on from.")
    rows: Rows | None = Field(None, description="What became of the rows, once it is known.")
    last_checkpoint: LastCheckpoint | None = Field(None, description="The newest state in the store.")
