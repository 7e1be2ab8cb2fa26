"""Fields that the status of the three kinds shares: phase, conditions, attempts, failures and artifacts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tunesmith_api.base import (
    ATOMIC_LIST,
    ApiModel,
    ShortText,
    Text,
    UriText,
    map_list,
)
from tunesmith_api.failures import FailureClass


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """A condition, as in metav1.Condition."""

    type: ShortText = Field(description="Type of the condition, such as Ready.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: Annotated[str, Field(max_length=128)] = Field(description="Reason in CamelCase, for programs.")
    message: Annotated[str, Field(max_length=8192)] = Field("", description="Reason in a sentence, for people.")
    last_transition_time: str = Field(
        description="When status last changed (RFC 3339).", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int = Field(0, ge=0, description="Generation of the spec that the condition describes.")


class Child(ApiModel):
    """An object that the operator has created for the resource."""

    kind: ShortText = Field(description="Kind of the object.")
    name: ShortText = Field(description="Name of the object.")


class ArtifactType(StrEnum):
    """Types of finished results. The value is the artifact's name in run.json and in status."""

    QUANTIZED = "quantized"
    MERGED = "merged"
    MODEL = "model"
    """All weights, trained with tuner full."""
    ADAPTER = "adapter"
    REWARD_MODEL = "rewardModel"
    """A whole model that scores answers."""
    CLASSIFIER = "classifier"
    """A whole model that classifies texts, or gives them numbers."""
    EMBEDDING_MODEL = "embeddingModel"
    """A whole model that turns texts into vectors."""
    RERANKER = "reranker"
    """A whole model that scores passages for a query."""
    TASK_ADAPTER = "taskAdapter"
    """An adapter with a head of its own, of a model that does not write text."""
    REPORT = "report"


LANGUAGE_MODELS = (ArtifactType.QUANTIZED, ArtifactType.MERGED, ArtifactType.MODEL, ArtifactType.ADAPTER)
"""Types that can be tuned further, scored and served, in order of preference."""


class Artifact(ApiModel):
    """A finished result in the store."""

    name: ShortText = Field(
        description="Type of the artifact: quantized, merged, model, adapter, rewardModel, classifier, embeddingModel, reranker, taskAdapter or report."
    )
    uri: UriText = Field(description="Folder in the store.")
    digest: ShortText | None = Field(None, description="sha256 of its manifest.")
    size_bytes: int | None = Field(None, ge=0, description="Size in bytes.")


FAILURE_CHARACTERS = 2048
"""Characters that the operator keeps of the message, the hint and the log of a failure."""


class LastFailure(ApiModel):
    """Root cause of the last failure, and what to do about it."""

    class_: FailureClass = Field(alias="class", description="Failure class.")
    message: Text = Field(description="What happened, and where.")
    hint: Annotated[str, Field(max_length=FAILURE_CHARACTERS)] = Field("", description="What to change.")
    pod: ShortText | None = Field(None, description="Name of the failed pod.")
    container: ShortText | None = Field(None, description="Name of the failed container.")
    exit_code: int | None = Field(None, description="Exit code of that container.")
    log_tail: Text | None = Field(None, description="Last lines of its log.")
    time: str | None = Field(
        None, description="When the operator observed it (RFC 3339).", json_schema_extra={"format": "date-time"}
    )


class ModelStatus(ApiModel):
    """Identity of a model."""

    uri: UriText | None = Field(None, description="URI of its weights.")
    digest: ShortText | None = Field(None, description="sha256 of its manifest, where known.")
    base: UriText | None = Field(None, description="For an adapter: URI of its base model.")


class Status(ApiModel):
    """Status fields of the three kinds."""

    phase: ShortText | None = Field(None, description="Summary for people; programs read conditions.")
    reason: ShortText | None = Field(None, description="Reason in CamelCase.")
    message: Annotated[str, Field(max_length=8192)] | None = Field(
        None, description="Reason in a sentence, and what to do next."
    )
    observed_generation: int | None = Field(
        None,
        ge=-1,
        description="Generation of the spec that this status describes; -1 until the operator has observed the resource.",
    )
    conditions: list[Condition] | None = Field(
        None,
        max_length=16,
        description="Ready, Reconciling and Stalled (kstatus), and conditions of the kind.",
        json_schema_extra=map_list("type"),
    )
    waiting_for: Annotated[str, Field(max_length=2048)] | None = Field(
        None, description="Another resource or a quota that it waits for."
    )
    start_time: str | None = Field(
        None, description="When the first pod started (RFC 3339).", json_schema_extra={"format": "date-time"}
    )
    completion_time: str | None = Field(
        None, description="When the resource finished (RFC 3339).", json_schema_extra={"format": "date-time"}
    )
    children: list[Child] | None = Field(
        None, max_length=64, description="Objects created for the resource.", json_schema_extra=ATOMIC_LIST
    )
    last_failure: LastFailure | None = Field(None, description="Root cause of the last failure.")


class Attempt(ApiModel):
    """A period in which an attempt's pods held nodes, with the wait before it. An attempt that its queue suspends and
    admits again has several."""

    number: int = Field(ge=0, description="Number of the attempt, from 1.")
    role: ShortText | None = Field(None, description="For an EvalJob: model or baseline.")
    start_time: str | None = Field(
        None, description="When its first pod was scheduled (RFC 3339).", json_schema_extra={"format": "date-time"}
    )
    end_time: str | None = Field(
        None, description="When its last pod stopped (RFC 3339).", json_schema_extra={"format": "date-time"}
    )
    outcome: ShortText | None = Field(
        None,
        description="Succeeded, Suspended, Stopped (with the job), or the failure class. Absent while it runs.",
    )
    failures: int | None = Field(
        None, ge=0, description="Failures of this role so far that count towards spec.retries, including this attempt."
    )
    queued_seconds: int | None = Field(None, ge=0, description="Seconds it waited, in its queue and for a node.")
    accelerator_seconds: int | None = Field(
        None,
        ge=0,
        description="Devices multiplied by the seconds that it held them.",
    )


class JobStatus(Status):
    """Status fields of FineTuneJob and EvalJob: attempts and their cost.

    Counts of seconds are updated together with other changes, and are exact once the job has finished.
    """

    attempt: int | None = Field(None, ge=0, description="The current or last attempt, from 1.")
    failures: int | None = Field(None, ge=0, description="Failed attempts so far that count towards spec.retries.")
    preemptions: int | None = Field(
        None,
        ge=0,
        description="Attempts that were preempted or evicted; they do not count towards spec.retries.",
    )
    attempts: list[Attempt] | None = Field(
        None,
        max_length=16,
        description="The newest attempts, oldest first: periods in which their pods held nodes, with the wait before. An attempt that its "
        "queue suspends and admits again has several.",
        json_schema_extra=ATOMIC_LIST,
    )
    accelerator_hours: float | None = Field(
        None,
        ge=0,
        description="Devices multiplied by the hours that its pods held them, over all attempts. Absent with accelerator cpu.",
    )
    queued_seconds: int | None = Field(
        None,
        ge=0,
        description="Seconds that attempts waited, in a queue and for a node, over all attempts.",
    )
