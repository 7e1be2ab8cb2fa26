"""Failure classes: the words of `status.lastFailure.class`, the runtime's exit codes, and what to do about each.

The exit code is part of the contract: a container that ends with one of these says why even where its termination
message is lost. Codes from 64 on follow sysexits(3) where it has a word for the cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FailureClass(StrEnum):
    """Why something failed."""

    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL = "ImagePull"
    QUOTA_EXCEEDED = "QuotaExceeded"
    POD_REFUSED = "PodRefused"
    POD_START = "PodStart"
    OOM_KILLED = "OOMKilled"
    DEVICE_OUT_OF_MEMORY = "DeviceOutOfMemory"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    PREEMPTED = "Preempted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    DISK_FULL = "DiskFull"
    BAD_SPEC = "BadSpec"
    BAD_ROW = "BadRow"
    EMPTY_DATASET = "EmptyDataset"
    DATASET_NOT_FOUND = "DatasetNotFound"
    MODEL_NOT_FOUND = "ModelNotFound"
    UNSAFE_WEIGHTS = "UnsafeWeights"
    CHAT_TEMPLATE_MISSING = "ChatTemplateMissing"
    STORAGE_UNREACHABLE = "StorageUnreachable"
    STORAGE_403 = "Storage403"
    STORAGE_TLS = "StorageTLS"
    STORAGE_CORRUPT = "StorageCorrupt"
    HUB_UNREACHABLE = "HubUnreachable"
    MERGE_MISMATCH = "MergeMismatch"
    ENGINE_FAILED = "EngineFailed"
    EVALUATION_FAILED = "EvaluationFailed"
    DIVERGED = "Diverged"
    NAME_CONFLICT = "NameConflict"
    PROCESS_ERROR = "ProcessError"


class Retry(StrEnum):
    """What a controller does after a failure of a class."""

    NEVER = "Never"
    COUNTED = "Counted"
    ALWAYS = "Always"


@dataclass(frozen=True)
class Failure:
    """One row of the table: the exit code (None where no process of ours exits with it), the retry policy, the hint."""

    exit_code: int | None
    retry: Retry
    hint: str


FAILURES: dict[FailureClass, Failure] = {
    FailureClass.UNSCHEDULABLE: Failure(
        None,
        Retry.NEVER,
        "ask for less in spec.resources, free or add a node with the named resource, or fix spec.pod.nodeSelector and tolerations",
    ),
    FailureClass.IMAGE_PULL: Failure(
        None, Retry.NEVER, "check the image name in the chart's values and spec.pod.imagePullSecrets"
    ),
    FailureClass.QUOTA_EXCEEDED: Failure(
        None, Retry.NEVER, "raise the namespace's ResourceQuota or ask for less in spec.resources"
    ),
    FailureClass.POD_REFUSED: Failure(
        None, Retry.NEVER, "an admission policy refused the pod: read the message, then change spec.pod or the policy"
    ),
    FailureClass.POD_START: Failure(
        None, Retry.NEVER, "a Secret, ConfigMap or volume that the pod needs is missing: create it in this namespace"
    ),
    FailureClass.OOM_KILLED: Failure(
        137, Retry.COUNTED, "raise spec.resources.memory, or lower training.microBatchSize or training.maxLength"
    ),
    FailureClass.DEVICE_OUT_OF_MEMORY: Failure(
        71,
        Retry.NEVER,
        "lower training.microBatchSize or training.maxLength, turn on gradientCheckpointing, or ask for more devices",
    ),
    FailureClass.EVICTED: Failure(
        None,
        Retry.ALWAYS,
        "the node ran short of a resource: set spec.resources so that the scheduler knows what the pod needs",
    ),
    FailureClass.NODE_LOST: Failure(
        None, Retry.ALWAYS, "the node went away; the work goes on from the last checkpoint"
    ),
    FailureClass.PREEMPTED: Failure(
        75, Retry.ALWAYS, "the pod was asked to stop; the work goes on from the last checkpoint"
    ),
    FailureClass.DEADLINE_EXCEEDED: Failure(
        None, Retry.NEVER, "raise spec.deadline or spec.pendingDeadline, or make the job smaller"
    ),
    FailureClass.DISK_FULL: Failure(
        73, Retry.NEVER, "raise spec.resources.ephemeralStorage, or use a node with more disk"
    ),
    FailureClass.BAD_SPEC: Failure(64, Retry.NEVER, "change the named field of the spec and create the resource anew"),
    FailureClass.BAD_ROW: Failure(
        65, Retry.NEVER, "mend the named line of the data file; see the documented row formats"
    ),
    FailureClass.EMPTY_DATASET: Failure(66, Retry.NEVER, "give a data set with at least one row that can be used"),
    FailureClass.DATASET_NOT_FOUND: Failure(
        67, Retry.NEVER, "check the data set's URI; list the bucket with your S3 client"
    ),
    FailureClass.MODEL_NOT_FOUND: Failure(
        68,
        Retry.NEVER,
        "check the model's URI and revision; the folder needs config.json and safetensors weights, or one GGUF file",
    ),
    FailureClass.UNSAFE_WEIGHTS: Failure(
        72, Retry.NEVER, "pickle weights can run code: convert the model to safetensors"
    ),
    FailureClass.CHAT_TEMPLATE_MISSING: Failure(
        74, Retry.NEVER, "use rows of prompt and completion, or a model whose tokenizer has a chat template"
    ),
    FailureClass.STORAGE_UNREACHABLE: Failure(
        69, Retry.COUNTED, "check the storage endpoint, its port and the network policies of this namespace"
    ),
    FailureClass.STORAGE_403: Failure(
        77, Retry.NEVER, "check the credentials Secret in this namespace and what the bucket's policy allows it"
    ),
    FailureClass.STORAGE_TLS: Failure(79, Retry.NEVER, "name the endpoint's certificate authority in storage.caBundle"),
    FailureClass.STORAGE_CORRUPT: Failure(
        80, Retry.COUNTED, "an object does not match its recorded sha256: restore it, or import the model anew"
    ),
    FailureClass.HUB_UNREACHABLE: Failure(
        81, Retry.COUNTED, "check the network to the hub, or import the model into the store and name it by s3://"
    ),
    FailureClass.MERGE_MISMATCH: Failure(
        82,
        Retry.NEVER,
        "the merged model does not compute what base and adapter do: set export.merge: false and report the model",
    ),
    FailureClass.ENGINE_FAILED: Failure(
        83,
        Retry.COUNTED,
        "the serving engine did not come up: read the log tail; a smaller model or more memory may help",
    ),
    FailureClass.EVALUATION_FAILED: Failure(84, Retry.NEVER, "read the log tail and the report in the run's folder"),
    FailureClass.DIVERGED: Failure(
        85, Retry.NEVER, "the loss became NaN or infinite: lower training.learningRate or raise training.warmupRatio"
    ),
    FailureClass.NAME_CONFLICT: Failure(
        None, Retry.NEVER, "an object of that name belongs to somebody else: rename the resource or remove the object"
    ),
    FailureClass.PROCESS_ERROR: Failure(1, Retry.COUNTED, "read the log tail"),
}

BY_EXIT_CODE: dict[int, FailureClass] = {
    row.exit_code: name for name, row in FAILURES.items() if row.exit_code is not None
}
