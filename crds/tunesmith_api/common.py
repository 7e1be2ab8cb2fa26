"""Blocks that the three kinds share: where models and data are, what pods get, and what status tells."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_api.base import (
    ATOMIC_LIST,
    ApiModel,
    Endpoint,
    LabelValue,
    ModelUri,
    Name,
    ObjectName,
    Quantity,
    Rule,
    ShortText,
    StoreUri,
    Text,
    UriText,
    exactly_one,
    map_list,
)
from tunesmith_api.failures import FailureClass
from tunesmith_api.grammar import Grammar, cel


class Reference(ApiModel):
    """An object of ours in the same namespace."""

    name: Name = Field(description="Name of the object; it must be in the same namespace.")


class ModelSource(ApiModel):
    """Where a model comes from: a URI, or what another resource of the namespace made or serves."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("uri", "fineTuneJob", "inferenceService"),)

    uri: ModelUri | None = Field(
        None,
        description="hf://org/name@revision, ms://org/name@revision (ModelScope), s3://bucket/prefix, pvc://claim/path or "
        "file:///path (local mode). A hub model is imported into the store once and read from there by every later user.",
    )
    fine_tune_job: Reference | None = Field(
        None, description="The artifact of a FineTuneJob: quantized, else merged, else adapter."
    )
    inference_service: Reference | None = Field(None, description="The model that an InferenceService serves now.")
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the model. Default false: such a model is refused."
    )


KEY = Grammar(
    pattern="^[-._A-Za-z0-9]+$",
    problem="is not a ConfigMap key",
    advice="write letters, digits, -, _ and ., such as ca.crt",
    tightened=True,
)
REGION = Grammar(
    pattern="^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$",
    problem="is not a region name",
    advice="write letters, digits and -, such as us-east-1",
    tightened=True,
)


class ConfigMapKey(ApiModel):
    """One key of a ConfigMap."""

    name: ObjectName = Field(description="Name of the ConfigMap, in the namespace of the resource.")
    key: Annotated[str, Field(max_length=253), KEY] = Field("ca.crt", description="Key within it. Default ca.crt.")


class Storage(ApiModel):
    """An S3 endpoint and the Secret to use it with; what is not set comes from the chart's default store."""

    endpoint: Endpoint | None = Field(
        None, description="URL of the S3 API, such as https://minio.storage.svc:9000. Default: the chart's, else AWS."
    )
    region: Annotated[str, Field(max_length=253), REGION] | None = Field(
        None, description="Region name. Default: the chart's, else us-east-1."
    )
    path_style: bool | None = Field(
        None,
        description="Address buckets as endpoint/bucket instead of bucket.endpoint. Default: the chart's, else true with an endpoint.",
    )
    ca_bundle: ConfigMapKey | None = Field(None, description="Certificates (PEM) to trust for a private endpoint.")
    credentials_secret: ObjectName | None = Field(
        None,
        description="Secret in this namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN). "
        "Default: the chart's name; where no such Secret is named, the ServiceAccount's identity is used.",
    )


class Toleration(ApiModel):
    """A toleration, as in a pod."""

    key: ShortText | None = Field(
        None, description="Taint key. Default: none; with operator Exists that tolerates all."
    )
    operator: Annotated[str, Field(json_schema_extra={"enum": ["Equal", "Exists"]})] = Field(
        "Equal", description="Equal or Exists. Default Equal."
    )
    value: ShortText | None = Field(None, description="Taint value, with operator Equal. Default: none.")
    effect: (
        Annotated[str, Field(json_schema_extra={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]})] | None
    ) = Field(None, description="Taint effect. Default: every effect.")
    toleration_seconds: int | None = Field(
        None, ge=0, description="Seconds to stay after a NoExecute taint. Default: for ever."
    )


RESERVED_VARIABLES = (
    "(?i)^((AWS|TUNESMITH|MODELSCOPE|LD|SSL_CERT|OPENSSL)_.*|PYTHON[A-Z0-9]*|HOME|PATH|HF_ENDPOINT|SSLKEYLOGFILE"
    "|(REQUESTS|CURL)_CA_BUNDLE|(HTTP|HTTPS|FTP|ALL|NO)_PROXY|(NVIDIA|ASCEND)_VISIBLE_DEVICES"
    "|HUGGINGFACE_CO_STAGING|BASH_ENV|CC|CXX|GLIBC_TUNABLES"
    "|.*(_PLUGINS?|_PRELOAD|INJECTION64_PATH|TOOL_LIBRARIES|_PTXAS_PATH|_CACHE_DIR))$"
)
"""Variables (RE2) that say where a pod fetches from, what it trusts, what code it loads, or which devices it sees."""
UNRESERVED_VARIABLE = "MODELSCOPE_API_TOKEN"
"""The one exception: it lets a pod read a private model, and changes nothing else."""


def is_reserved(variable: str) -> bool:
    """Whether users may not set `variable`: a pod writes to the store that others read from."""
    return variable != UNRESERVED_VARIABLE and re.match(RESERVED_VARIABLES, variable) is not None


VARIABLE_NAME = Grammar(
    pattern="^[A-Za-z_][A-Za-z0-9_]*$",
    problem="is not a variable name",
    advice="write letters, digits and _, not beginning with a digit",
    repairs=(("-", "_"), (".", "_"), (" ", "_")),
)


class EnvVar(ApiModel):
    """A plain environment variable, taken as it is: $(NAME) is not expanded. Secrets do not belong here.

    What says where a pod fetches from, what it trusts, or what code it loads is refused (AWS_*, *_PROXY, HF_ENDPOINT,
    CA bundles, PYTHON*, LD_*, PATH and the like): pods import models into the store that others read from.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.name == '{UNRESERVED_VARIABLE}' || !self.name.matches('{RESERVED_VARIABLES}')",
            "this variable is the operator's, as it decides what a pod trusts, loads or writes to the shared store: "
            "remove it; endpoint, certificates and credentials belong in spec.storage, a proxy or mirror in the image",
        ),
    )

    name: Annotated[str, Field(max_length=128), VARIABLE_NAME] = Field(description="Variable name.")
    value: Text = Field("", description="Value.")


class LocalObject(ApiModel):
    """A named object such as an image pull secret."""

    name: ObjectName = Field(description="Name of the object in this namespace.")


LABEL_KEY = Grammar(
    pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
    problem="is not a label key",
    advice="write the key of a label that nodes have, such as topology.kubernetes.io/zone",
    repairs=((" ", "-"),),
)


class PodSettings(ApiModel):
    """What users set on the pods; the rest of the pod is the operator's."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            " && ".join(
                f"(!has(self.{field}) || self.{field}.all(key, key.matches({cel(LABEL_KEY.pattern)})))"
                for field in ("nodeSelector", "labels", "annotations")
            ),
            "a key of nodeSelector, labels or annotations is not a label key: write letters, digits, -, _ and ., with or "
            "without the lower-case name of a domain and / before it, such as topology.kubernetes.io/zone",
        ),
        *(
            Rule(
                f"!has(self.{field}) || !self.{field}.exists(key, key.startsWith('tunesmith.dev/') || key.startsWith('app.kubernetes.io/'))",
                f"{field} below tunesmith.dev/ and app.kubernetes.io/ are the operator's; remove them",
            )
            for field in ("labels", "annotations")
        ),
    )

    node_selector: dict[str, LabelValue] | None = Field(None, max_length=32, description="Labels a node must have.")
    tolerations: list[Toleration] | None = Field(
        None, max_length=32, description="Taints to tolerate.", json_schema_extra=ATOMIC_LIST
    )
    service_account_name: ObjectName | None = Field(
        None, description="ServiceAccount of the pods. Default: default. No API token is mounted."
    )
    image_pull_secrets: list[LocalObject] | None = Field(
        None, max_length=8, description="Secrets to pull images with.", json_schema_extra=map_list("name")
    )
    env: list[EnvVar] | None = Field(
        None,
        max_length=64,
        description="Environment variables, taken as they are written: $(NAME) is not expanded. What decides where a pod "
        "fetches from, what it trusts or what code it loads is refused.",
        json_schema_extra=map_list("name"),
    )
    labels: dict[str, LabelValue] | None = Field(None, max_length=32, description="Labels added to the pods.")
    annotations: dict[str, Text] | None = Field(None, max_length=32, description="Annotations added to the pods.")
    priority_class_name: ObjectName | None = Field(
        None, description="PriorityClass of the pods. Default: the cluster's."
    )
    runtime_class_name: ObjectName | None = Field(
        None,
        description="RuntimeClass of the pods, but for one that prepares work without devices. Default: the node's own runtime.",
    )
    scheduler_name: ObjectName | None = Field(None, description="Scheduler of the pods. Default: the cluster's.")


class Accelerator(StrEnum):
    """What computes: a vendor's device, or the CPU."""

    CPU = "cpu"
    NVIDIA = "nvidia"
    ASCEND = "ascend"


class Resources(ApiModel):
    """What one pod asks for. Requests equal limits for memory and devices; CPU is a request."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.accelerator != 'cpu' || !has(self.count)",
            "accelerator cpu has no count; remove count, or set accelerator: nvidia or ascend",
        ),
    )

    accelerator: Accelerator = Field(Accelerator.CPU, description="cpu, nvidia or ascend. Default cpu.")
    count: int | None = Field(None, ge=1, le=64, description="Devices per pod. Default 1 with nvidia and ascend.")
    cpu: Quantity | None = Field(None, description="CPU request of a pod, in cores. Default 500m.")
    memory: Quantity | None = Field(None, description="Memory request and limit of a pod, in bytes. Default: no limit.")
    ephemeral_storage: Quantity | None = Field(
        None, description="Disk for the model, data and checkpoints of a pod, in bytes. Default: none asked for."
    )
    shared_memory: Quantity | None = Field(
        None,
        description="Size of a memory-backed /dev/shm, in bytes; what is in it counts as the pod's memory. Default: 1Gi for "
        "each device of a FineTuneJob with several devices or pods, else none.",
    )

    @property
    def devices(self) -> int:
        """Devices of a pod: none with accelerator cpu."""
        return 0 if self.accelerator is Accelerator.CPU else self.count or 1

    @property
    def processes(self) -> int:
        """Processes that compute in a pod: one for each device, or one on the CPU."""
        return max(self.devices, 1)


class Output(ApiModel):
    """Where the results go."""

    uri: StoreUri | None = Field(
        None,
        description="s3://bucket/prefix, pvc://claim/path or file:///path; each run gets a folder of its own below it. "
        "Default: runs/NAMESPACE/NAME in the chart's store.",
    )


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """A condition, as in metav1.Condition."""

    type: ShortText = Field(description="What it is about, such as Ready.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: Annotated[str, Field(max_length=128)] = Field(description="Why, in one word for machines.")
    message: Annotated[str, Field(max_length=8192)] = Field("", description="Why, in a sentence for people.")
    last_transition_time: str = Field(
        description="When status last changed (RFC 3339).", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int = Field(0, ge=0, description="The generation of the spec it speaks of.")


class Child(ApiModel):
    """An object the operator made for this resource."""

    kind: ShortText = Field(description="Kind of the object.")
    name: ShortText = Field(description="Name of the object.")


class ArtifactType(StrEnum):
    """Kinds of finished results. The value is the artifact's name in run.json and in status."""

    QUANTIZED = "quantized"
    MERGED = "merged"
    MODEL = "model"
    """All weights, of a job with tuner full."""
    ADAPTER = "adapter"
    REPORT = "report"


LANGUAGE_MODELS = (ArtifactType.QUANTIZED, ArtifactType.MERGED, ArtifactType.MODEL, ArtifactType.ADAPTER)
"""The types that can be tuned further, scored and served, the readiest to use first."""


class Artifact(ApiModel):
    """A finished result in the store."""

    name: ShortText = Field(description="What it is: adapter, merged, quantized, report.")
    uri: UriText = Field(description="Where it is.")
    digest: ShortText | None = Field(None, description="sha256 of its manifest.")
    size_bytes: int | None = Field(None, ge=0, description="Size in bytes.", json_schema_extra={"format": "int64"})


class LastFailure(ApiModel):
    """The true cause of the last failure and what to do about it."""

    class_: FailureClass = Field(alias="class", description="The kind of failure.")
    message: Annotated[str, Field(max_length=4096)] = Field(description="What happened, where.")
    hint: Annotated[str, Field(max_length=2048)] = Field("", description="What to change.")
    pod: ShortText | None = Field(None, description="The pod it happened in.")
    container: ShortText | None = Field(None, description="The container (stage) it happened in.")
    exit_code: int | None = Field(None, description="Exit code of that container.")
    log_tail: Annotated[str, Field(max_length=4096)] | None = Field(None, description="Last lines of its log.")
    time: str | None = Field(
        None, description="When it was seen (RFC 3339).", json_schema_extra={"format": "date-time"}
    )


class ModelStatus(ApiModel):
    """Which model, exactly."""

    uri: UriText | None = Field(None, description="Where its weights are.")
    digest: ShortText | None = Field(None, description="sha256 of its manifest, where known.")
    base: UriText | None = Field(None, description="For an adapter: URI of the model it goes on.")


class Status(ApiModel):
    """What the three kinds' status has in common."""

    phase: ShortText | None = Field(None, description="Where it stands, for people; programs read conditions.")
    reason: ShortText | None = Field(None, description="Why, in one word.")
    message: Annotated[str, Field(max_length=8192)] | None = Field(
        None, description="Why, in a sentence, and what to do next."
    )
    observed_generation: int | None = Field(
        None,
        ge=-1,
        description="The generation of the spec this status speaks of; -1 until the operator has seen the resource.",
        json_schema_extra={"format": "int64"},
    )
    conditions: list[Condition] | None = Field(
        None,
        max_length=16,
        description="Ready, Reconciling, Stalled (kstatus) and our own.",
        json_schema_extra=map_list("type"),
    )
    waiting_for: Annotated[str, Field(max_length=2048)] | None = Field(
        None, description="What it waits for, such as another resource or a quota."
    )
    start_time: str | None = Field(
        None, description="When the first pod started (RFC 3339).", json_schema_extra={"format": "date-time"}
    )
    completion_time: str | None = Field(
        None, description="When it ended (RFC 3339).", json_schema_extra={"format": "date-time"}
    )
    children: list[Child] | None = Field(
        None, max_length=64, description="Objects made for it.", json_schema_extra=ATOMIC_LIST
    )
    last_failure: LastFailure | None = Field(None, description="The true cause of the last failure.")


class Attempt(ApiModel):
    """One stay of an attempt's pods on their nodes, with the wait before it. An attempt that its queue has stopped and
    admitted again has several."""

    number: int = Field(ge=0, description="The attempt, from 1.")
    role: ShortText | None = Field(None, description="For an EvalJob: model or baseline.")
    start_time: str | None = Field(
        None, description="When its first pod got a node (RFC 3339).", json_schema_extra={"format": "date-time"}
    )
    end_time: str | None = Field(
        None, description="When its last pod had stopped (RFC 3339).", json_schema_extra={"format": "date-time"}
    )
    outcome: ShortText | None = Field(
        None,
        description="Succeeded, Suspended, Stopped (with the whole job), or the class of the failure. Absent: it goes on.",
    )
    failures: int | None = Field(
        None, ge=0, description="Failures of this role so far that count towards spec.retries, this one among them."
    )
    queued_seconds: int | None = Field(
        None, ge=0, description="Seconds it waited, in its queue and for a node.", json_schema_extra={"format": "int64"}
    )
    accelerator_seconds: int | None = Field(
        None, ge=0, description="Devices times seconds that it held.", json_schema_extra={"format": "int64"}
    )


class JobStatus(Status):
    """What the status of FineTuneJob and EvalJob have in common: attempts, and what they cost.

    Seconds that are still running are brought up to date whenever something else changes, and are exact at the end.
    """

    attempt: int | None = Field(None, ge=0, description="The current or last attempt, from 1.")
    failures: int | None = Field(None, ge=0, description="Failed attempts so far that count towards spec.retries.")
    preemptions: int | None = Field(
        None,
        ge=0,
        description="Attempts that were stopped by no fault of theirs; they do not count towards spec.retries.",
    )
    attempts: list[Attempt] | None = Field(
        None, max_length=16, description="The newest attempts, oldest first.", json_schema_extra=ATOMIC_LIST
    )
    accelerator_hours: float | None = Field(
        None,
        ge=0,
        description="Devices times hours that its pods held, over all attempts. Absent with accelerator cpu.",
    )
    queued_seconds: int | None = Field(
        None,
        ge=0,
        description="Seconds that attempts waited, in a queue and for a node, over all attempts.",
        json_schema_extra={"format": "int64"},
    )


NAME_RULES: tuple[Rule, ...] = (
    Rule(
        "size(self.metadata.name) <= 45",
        "metadata.name has at most 45 characters, as pods are named after it: choose a shorter one",
    ),
    Rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name is a DNS label: lower-case letters, digits and -, beginning with a letter",
    ),
)
"""Rules on a whole object: its children are named after it and must be DNS labels."""
