"""The contract between operator and runtime: the spec file that a pod receives, and the report that it leaves.

The operator writes a `RunSpec` as JSON into the annotation `tunesmith.dev/run` of the pod template; the downward API
shows it to every container as the file `SPEC_FILE`. Each container leaves a `RunReport` as JSON in its termination
message (at most TERMINATION_MESSAGE_BYTES) and exits with 0 or an exit code of `tunesmith_api.failures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from pydantic import Field, field_validator, model_validator

from tunesmith_api.base import ApiModel, UriText
from tunesmith_api.catalogue import SCHEME
from tunesmith_api.evaljob import EvalJobSpec, Result
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.finetunejob_status import Estimate, LastCheckpoint, MeanReward, Metrics, Rows
from tunesmith_api.inferenceservice import InferenceServiceSpec
from tunesmith_api.spec_fields import DATA_NAMES, values_at
from tunesmith_api.status import Artifact

RUN_ANNOTATION = "tunesmith.dev/run"
SPEC_FILE = "/etc/tunesmith/run.json"
WORK_DIRECTORY = "/work"
CATALOGUE_DIRECTORY = "/etc/tunesmith-catalogue"
"""Where the namespace's ConfigMap of catalogue entries is mounted in a pod that looks up names."""
TEMPLATE_FILE = "/etc/tunesmith-template/chat_template.jinja"
"""The text of training.chatTemplate, which the operator mounts."""
REWARD_CODE_FILE = "/etc/tunesmith-rewards/reward.py"
"""The text of rewards[].code. The operator mounts it in the containers that identify it and in the one that runs it."""
REWARD_SOCKET = "/run/tunesmith-rewards/socket"
"""Unix socket between the container of that code and the training."""
TERMINATION_MESSAGE_BYTES = 3072
"""The kubelet cuts a message at 4,096 bytes, and all messages of a pod at 12 KiB, shared evenly by its containers
(kubernetes/pkg/kubelet/status/status_manager.go). Our pods have three or four containers."""
LOG_TAIL_CHARACTERS = 1500
"""Maximum length of the end of the log in the report of a failure."""

CACHE_DIRECTORY = "/cache"
"""Where containers mount the cache of model files: fetch for writing, all others read-only."""
CACHE_LEASES_DIRECTORY = "/cache-leases"
"""Where the other containers mount the folder leases/ of the cache for writing."""

PROGRESS_TOKEN_VARIABLE = "TUNESMITH_PROGRESS_TOKEN"
"""Environment variable with the bearer token that authorizes progress reports of this Job only."""
API_KEY_VARIABLE = "TUNESMITH_API_KEY"
"""Environment variable with the key that requests to a model server must carry. If it is absent, requests need no key."""
POD_NAME_VARIABLE = "TUNESMITH_POD"
INDEX_VARIABLE = "TUNESMITH_INDEX"
"""Environment variable with the index of a pod among those of its Job, from 0; absent for a single pod."""
ENGINE_PORT = 8000
"""Port of the OpenAI API and of /health in a serving pod, with every engine."""
READY_PORT = 8001
"""Port of /ready in a serving pod, with every engine: succeeds once the engine has generated a token."""


def judge_key_variable(index: int) -> str:
    """Return the environment variable with the API key of the judge of spec.rewards[index]."""
    return f"TUNESMITH_REWARD_{index}_API_KEY"


class Verb(StrEnum):
    """A command of the runtime. Each runs in a container of its own."""

    PREPARE = "prepare"
    FETCH = "fetch"
    TRAIN = "train"
    EXPORT = "export"
    EVALUATE = "evaluate"
    SERVE = "serve"


class Store(ApiModel):
    """The object storage of a run: the resource's `storage` merged over the chart's default store.

    Credentials are not in it: they reach the container as AWS_* variables from a Secret, or by the ServiceAccount.
    """

    uri: UriText = Field(
        description="Root for imported models and runs that name no output: s3://bucket/prefix or file:///path."
    )
    endpoint: str | None = Field(None, description="URL of the S3 API; absent means AWS.")
    region: str = Field("us-east-1", description="Region name.")
    path_style: bool = Field(False, description="Address buckets as endpoint/bucket.")
    ca_bundle: str | None = Field(None, description="Path, in the container, of the certificates to trust.")


class CacheMount(ApiModel):
    """The cache of model files that pods share."""

    path: str = Field(CACHE_DIRECTORY, description="Its folder in the container.")
    leases: str = Field(CACHE_LEASES_DIRECTORY, description="Folder of its leases in containers other than fetch.")
    max_bytes: str | None = Field(None, description="Bound of its size, as a quantity; absent: its disk.")


class HubName(StrEnum):
    """A public hub of models and data sets."""

    HUGGING_FACE = "huggingface"
    MODEL_SCOPE = "modelscope"


class Hub(ApiModel):
    """The chart's settings of the hubs. Tokens are not in it: they reach the container as variables from a Secret."""

    order: list[HubName] = Field(
        default_factory=lambda: list(HubName), description="Hubs in the order in which a catalogue name is looked up."
    )
    endpoints: dict[HubName, list[str]] = Field(
        default_factory=dict,
        description="Hub -> URLs of its servers, tried in this order; absent or empty: the hub's own server.",
    )


class ResolvedModel(ApiModel):
    """A model with every reference resolved to a URI."""

    uri: str = Field(
        description="hf://, ms://, s3:// or file:// URI of weights, or of an adapter where base is set; catalogue://NAME until "
        "the pod has looked up the name."
    )
    digest: str | None = Field(None, description="sha256 of its manifest, if a run has published it.")
    base: ResolvedModel | None = Field(None, description="For an adapter: its base model.")
    trust_remote_code: bool = Field(False, description="Whether Python code of the model may run.")

    @property
    def is_on_hub(self) -> bool:
        """Whether the model must be imported into the store before it is read."""
        return self.uri.startswith(("hf://", "ms://"))

    @property
    def is_named(self) -> bool:
        """Whether it is a name of the catalogue that is not looked up yet."""
        return self.uri.startswith(SCHEME)

    @property
    def is_on_web(self) -> bool:
        """Whether it is a file on a web server, which is imported likewise."""
        return self.uri.startswith("https://")

    def with_bases(self) -> Iterator[ResolvedModel]:
        """Yield the model, then its base."""
        yield self
        if self.base:
            yield from self.base.with_bases()


class ModelRole(StrEnum):
    """Purpose of a model in a run."""

    BASE = "base"
    """Weights that are tuned, scored or served, without adapter."""
    ADAPTER = "adapter"
    """Adapter on the base that is scored or served."""
    REFERENCE = "reference"
    REWARD = "reward"
    TEACHER = "teacher"
    LABELLER = "labeller"
    INITIAL = "initial"
    """Adapter on the base, from which a training continues."""


ADAPTER_ROLES = frozenset({ModelRole.ADAPTER, ModelRole.INITIAL})
"""Roles of adapters on the base; in all others are whole models."""


def models_by_role(model: ResolvedModel) -> dict[ModelRole, ResolvedModel]:
    """Return a resolved model by role: as base, or as adapter with its base."""
    if model.base is None:
        return {ModelRole.BASE: model}
    return {ModelRole.BASE: model.base, ModelRole.ADAPTER: model.model_copy(update={"base": None})}


class NamedAdapter(ApiModel):
    """An adapter that is served under its own model name."""

    name: str = Field(description="Model name that requests use.")
    model: ResolvedModel = Field(description="The adapter; its base is the served model.")


class World(ApiModel):
    """The process group of a training: a process for each device of each pod. Process 0 of pod 0 leads."""

    nodes: int = Field(1, ge=1, description="Pods.")
    processes: int = Field(1, ge=1, description="Processes in each pod.")
    host: str = Field("127.0.0.1", description="DNS name of pod 0.")
    port: int = Field(29500, ge=1, le=65535, description="Port of the rendezvous in pod 0.")
    rendezvous_seconds: float = Field(86400, gt=0, description="Seconds that a process waits for the others to start.")
    unreachable_seconds: float = Field(
        300, gt=0, description="Seconds that pod 0 may have an address but be unreachable."
    )
    collective_seconds: float = Field(
        3600, gt=0, description="Timeout of a collective operation, such as a checkpoint, in seconds."
    )

    @property
    def size(self) -> int:
        """The number of processes."""
        return self.nodes * self.processes


class RunSpec(ApiModel):
    """Input of a pod: the resource with its references resolved."""

    kind: str = Field(description="FineTuneJob, EvalJob or InferenceService.")
    name: str = Field(description="Name of the resource; an InferenceService is known by it in the OpenAI API.")
    namespace: str = Field(description="Namespace of the resource.")
    uid: str = Field(description="UID of the resource.")
    attempt: int = Field(
        1, ge=1, description="Number of the attempt, from 1. The runtime resumes from the last checkpoint in any case."
    )
    role: str | None = Field(None, description="For an EvalJob: model or baseline.")
    spec: dict[str, Any] = Field(description="The resource's spec, with defaults, as the API server holds it.")
    spec_hash: str = Field(description="See tunesmith_api.hashing.spec_hash.")
    store: Store = Field(description="Object storage.")
    hub: Hub | None = Field(None, description="Servers of the hubs; absent: their own.")
    models: dict[ModelRole, ResolvedModel] = Field(description="Models of the run by role. There is always a base.")
    adapters: list[NamedAdapter] = Field(default_factory=list, description="Adapters of an InferenceService.")
    output_uri: str = Field(description="Parent of the run's folder.")
    chat_template_file: str | None = Field(
        None,
        description="Path, in the container, of the chat template of training.chatTemplate; absent: none is given.",
    )
    reward_code_file: str | None = Field(
        None, description="Path, in the container, of the code of rewards[].code; absent: there is none."
    )
    progress_url: str | None = Field(None, description="URL that receives progress reports; absent: none.")
    world: World | None = Field(None, description="Process group; absent: a single process.")
    looked_up: dict[str, str] | None = Field(
        None, description="Digest of what each name of the catalogue stands for, by field. Set in the pod."
    )
    names_record: str | None = Field(
        None,
        description="URI where fetch records which models the names of a service's version stand for; absent: nothing to "
        "record. Set in the pod.",
    )
    cache: CacheMount | None = Field(None, description="Cache of model files; absent: none.")

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

    @property
    def has_names(self) -> bool:
        """Whether it has names of the catalogue that are not looked up yet."""
        models = [*self.models.values(), *(each.model for each in self.adapters)]
        data = (name for kind, path in DATA_NAMES if kind == self.kind for name in values_at(self.spec, path))
        return any(model.is_named for model in models) or any(data)

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
    """Outcome of a verb."""

    SUCCEEDED = "Succeeded"
    ADOPTED = "Adopted"
    PREEMPTED = "Preempted"
    FAILED = "Failed"


class FailureReport(ApiModel):
    """Cause of a verb's failure."""

    class_: FailureClass = Field(alias="class", description="Failure class.")
    message: str = Field(description="What happened and where: file, line, URI.")
    hint: str | None = Field(None, description="What to do, if it is more specific than the hint of the class.")
    log_tail: str | None = Field(
        None, description=f"Last lines of the log, at most {LOG_TAIL_CHARACTERS:,} characters."
    )


class RunReport(ApiModel):
    """The termination message of a container. The report of the last container is the result of the run."""

    verb: Verb = Field(description="The verb.")
    outcome: Outcome = Field(description="Outcome of the verb.")
    run_uri: str | None = Field(None, description="The run's folder in the store.")
    report_uri: str | None = Field(None, description="export: the page that describes the run.")
    model_uri: str | None = Field(
        None, description="prepare, fetch: URI in the store that the model was read from (after an import)."
    )
    model_digest: str | None = Field(None, description="prepare, fetch, evaluate: sha256 of the model's manifest.")
    artifacts: list[Artifact] | None = Field(None, description="train, export, evaluate: published artifacts.")
    rows: Rows | None = Field(None, description="prepare, train: counts of the rows.")
    estimate: Estimate | None = Field(None, description="prepare, fetch: what the run is expected to need.")
    metrics: Metrics | None = Field(None, description="train, export: figures of the run.")
    tracking_url: str | None = Field(None, description="train: page of the run on the tracker's server.")
    results: list[Result] | None = Field(None, description="evaluate: the scores of this model.")
    resumed_from_step: int | None = Field(None, description="train: step from which it resumed.")
    last_checkpoint: LastCheckpoint | None = Field(None, description="train: newest checkpoint in the store.")
    failure: FailureReport | None = Field(None, description="Cause of the failure.")


class ProgressReport(ApiModel):
    """Body of `POST {progress_url}`: progress of a pod. The token in the Authorization header identifies its Job."""

    stage: str = Field(description="fetch, train or export; for an evaluation the benchmark.")
    step: int = Field(0, ge=0, description="Steps (or questions) done.")
    total_steps: int = Field(0, ge=0, description="Steps (or questions) in total.")
    epoch: float | None = Field(None, description="Passes over the data done.")
    loss: float | None = Field(None, description="Latest training loss.")
    eval_loss: float | None = Field(None, description="Latest validation loss.")
    eval_losses: list[float] | None = Field(
        None, description="Latest loss of each of validation.datasets, if there are several."
    )
    reward: float | None = Field(None, description="As Progress.reward.")
    rewards: list[MeanReward] | None = Field(None, description="As Progress.rewards.")
    sampling_share: float | None = Field(None, description="As Progress.samplingShare.")
    loading_share: float | None = Field(None, description="As Progress.loadingShare.")
    truncated_share: float | None = Field(None, description="As Progress.truncatedShare.")
    reward_margin: float | None = Field(None, description="As Progress.rewardMargin.")
    reward_accuracy: float | None = Field(None, description="As Progress.rewardAccuracy.")
    kl: float | None = Field(None, description="As Progress.kl.")
    eval_accuracy: float | None = Field(None, description="As Progress.evalAccuracy.")
    eval_f1: float | None = Field(None, description="As Progress.evalF1.")
    eval_correlation: float | None = Field(None, description="As Progress.evalCorrelation.")
    eval_recall: float | None = Field(None, description="As Progress.evalRecall.")
    eval_mrr: float | None = Field(None, description="As Progress.evalMrr.")
    learning_rate: float | None = Field(None, description="Current learning rate.")
    tokens_per_second: float | None = Field(None, description="Tokens trained on per second.")
    eta_seconds: int | None = Field(None, description="Seconds left.")
    resumed_from_step: int | None = Field(None, description="Step from which this attempt resumed.")
    rows: Rows | None = Field(None, description="Counts of the rows, once known.")
    tracking_url: str | None = Field(None, description="Page of the run on the tracker's server, once known.")
    last_checkpoint: LastCheckpoint | None = Field(None, description="Newest checkpoint in the store.")
