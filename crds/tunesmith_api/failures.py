"""Failure classes: the words of `status.lastFailure.class`, the runtime's exit codes, and what to do about each.

The exit code is part of the contract: a container that ends with one of these says why even where its termination
message is lost. Codes from 64 on follow sysexits(3) where it has a word for the cause. A code never changes its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class FailureClass(StrEnum):
    """Why something failed."""

    UNSCHEDULABLE = "Unschedulable"
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    IMAGE_PULL = "ImagePull"
    QUOTA_EXCEEDED = "QuotaExceeded"
    POD_REFUSED = "PodRefused"
    POD_START = "PodStart"
    NODE_REFUSED = "NodeRefused"
    OOM_KILLED = "OOMKilled"
    DEVICE_OUT_OF_MEMORY = "DeviceOutOfMemory"
    DEVICE_FAILED = "DeviceFailed"
    COLLECTIVE_FAILED = "CollectiveFailed"
    SHARED_MEMORY_FULL = "SharedMemoryFull"
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
    BAD_MODEL = "BadModel"
    UNSAFE_WEIGHTS = "UnsafeWeights"
    CHAT_TEMPLATE_MISSING = "ChatTemplateMissing"
    STORAGE_UNREACHABLE = "StorageUnreachable"
    STORAGE_403 = "Storage403"
    STORAGE_TLS = "StorageTLS"
    STORAGE_CORRUPT = "StorageCorrupt"
    STORAGE_UNSUPPORTED = "StorageUnsupported"
    HUB_UNREACHABLE = "HubUnreachable"
    MERGE_MISMATCH = "MergeMismatch"
    ENGINE_FAILED = "EngineFailed"
    EVALUATION_FAILED = "EvaluationFailed"
    DIVERGED = "Diverged"
    NOTHING_LEARNED = "NothingLearned"
    NAME_CONFLICT = "NameConflict"
    PROCESS_ERROR = "ProcessError"


class Retry(StrEnum):
    """What a controller does after a failure of a class."""

    WAITS = "Waits"
    """A pod that does not start is waited for: it starts by itself when the trouble is over. One that has ended for such
    a reason is not tried again."""
    NEVER = "Never"
    COUNTED = "Counted"
    ALWAYS = "Always"


@dataclass(frozen=True)
class Failure:
    """One row of the table: the exit code (None where no process of ours exits with it), the retry policy, what
    happened, and the hint: what to do about it. Fields that a hint names begin with `spec.`."""

    exit_code: int | None
    retry: Retry
    meaning: str
    hint: str
    hints: Mapping[str, str] = field(default_factory=dict)
    """By kind: the hint where the kind has fields of its own for it."""

    def hint_for(self, kind: str) -> str:
        """The hint for a resource of `kind`."""
        return self.hints.get(kind, self.hint)


TUNE, EVAL, SERVE = "FineTuneJob", "EvalJob", "InferenceService"


FAILURES: dict[FailureClass, Failure] = {
    FailureClass.UNSCHEDULABLE: Failure(
        None,
        Retry.WAITS,
        "no node can take the pod",
        "ask for less in spec.resources, free or add a node with the named resource, or correct spec.pod.nodeSelector and "
        "spec.pod.tolerations",
    ),
    FailureClass.VOLUME_UNAVAILABLE: Failure(
        None,
        Retry.WAITS,
        "a volume of the pod is not there, not bound, or can't be attached to its node",
        "look at the named PersistentVolumeClaim with kubectl describe; the pod starts by itself when the volume is there",
    ),
    FailureClass.IMAGE_PULL: Failure(
        None,
        Retry.WAITS,
        "an image can't be pulled",
        "check the image's name in the chart's values (images) and the Secrets in spec.pod.imagePullSecrets",
    ),
    FailureClass.QUOTA_EXCEEDED: Failure(
        None,
        Retry.WAITS,
        "the namespace's ResourceQuota does not admit the pod",
        "raise the namespace's ResourceQuota or ask for less in spec.resources",
    ),
    FailureClass.POD_REFUSED: Failure(
        None,
        Retry.WAITS,
        "an admission rule of the cluster refuses the pod",
        "the message names the rule: change what it refuses in spec.pod or spec.resources, or have the rule changed",
    ),
    FailureClass.POD_START: Failure(
        None,
        Retry.WAITS,
        "the kubelet can't start a container",
        "a Secret, ConfigMap or volume that the pod needs is missing: create it in this namespace",
    ),
    FailureClass.NODE_REFUSED: Failure(
        None,
        Retry.ALWAYS,
        "the scheduler chose a node whose kubelet then had no room, or no healthy device, for the pod",
        "another pod is tried by itself; if it happens again and again, look at the node's device plugin and drain the node",
    ),
    FailureClass.OOM_KILLED: Failure(
        137,
        Retry.COUNTED,
        "a container used more memory than it may",
        "raise spec.resources.memory, or set it",
        {
            TUNE: "raise spec.resources.memory, or set it; or halve spec.training.microBatchSize, or set "
            "spec.training.gradientCheckpointing: true",
            SERVE: "raise spec.resources.memory, or set it; or lower spec.maxModelLength, or serve a smaller model",
        },
    ),
    FailureClass.DEVICE_OUT_OF_MEMORY: Failure(
        71,
        Retry.NEVER,
        "the memory of what computes is full: the GPU's, the NPU's, or the pod's with accelerator cpu",
        "use a smaller model, or nodes whose devices have more memory",
        {
            TUNE: "halve spec.training.microBatchSize (default: 8 at most), set spec.training.gradientCheckpointing: true, or use "
            "nodes whose devices have more memory",
            EVAL: "double spec.resources.count where status.engine is not transformers, use nodes whose devices have more memory, or "
            "evaluate a smaller model",
            SERVE: "double spec.resources.count where status.engine is not transformers, lower spec.maxModelLength, use nodes whose "
            "devices have more memory, or serve a smaller model",
        },
    ),
    FailureClass.DEVICE_FAILED: Failure(
        87,
        Retry.COUNTED,
        "a GPU or NPU, or its driver, failed",
        "look at the node's kernel log and driver (nvidia-smi, npu-smi), and drain the node if its device is broken",
    ),
    FailureClass.COLLECTIVE_FAILED: Failure(
        86,
        Retry.COUNTED,
        "the processes of a run lost each other (NCCL, HCCL, gloo)",
        "look for an earlier failure of another pod of the run; else check the network between the nodes",
    ),
    FailureClass.SHARED_MEMORY_FULL: Failure(
        88,
        Retry.NEVER,
        "/dev/shm of the pod is full",
        "set spec.resources.sharedMemory to more, such as 8Gi; where spec.resources.memory is set, raise it by as much",
    ),
    FailureClass.EVICTED: Failure(
        None,
        Retry.ALWAYS,
        "the node ran short of memory, disk or process numbers and ended the pod",
        "set spec.resources.memory and spec.resources.ephemeralStorage to what the pod needs, so that it gets a node that has it",
    ),
    FailureClass.NODE_LOST: Failure(
        None,
        Retry.ALWAYS,
        "the pod's node is gone, shuts down or does not answer",
        "nothing needs to be done: another pod takes its place",
        {
            TUNE: "nothing needs to be done: a new pod goes on from the last checkpoint",
            EVAL: "nothing needs to be done: a new pod repeats the evaluation",
        },
    ),
    FailureClass.PREEMPTED: Failure(
        75,
        Retry.ALWAYS,
        "the pod was asked to stop: a drain, a higher priority, a deletion",
        "nothing needs to be done: another pod takes its place",
        {
            TUNE: "nothing needs to be done: a new pod goes on from the last checkpoint",
            EVAL: "nothing needs to be done: a new pod repeats the evaluation",
        },
    ),
    FailureClass.DEADLINE_EXCEEDED: Failure(
        None,
        Retry.NEVER,
        "it took longer than spec.deadline, or waited longer than spec.pendingDeadline",
        "create the resource again with a longer spec.deadline or spec.pendingDeadline, or without them",
    ),
    FailureClass.DISK_FULL: Failure(
        73,
        Retry.NEVER,
        "the pod's disk is full, or it used more of it than it may",
        "raise spec.resources.ephemeralStorage, or set it, or choose nodes with more disk by spec.pod.nodeSelector",
    ),
    FailureClass.BAD_SPEC: Failure(
        64,
        Retry.NEVER,
        "the spec asks for what can't be done",
        "change the named field of the spec",
    ),
    FailureClass.BAD_ROW: Failure(
        65,
        Retry.NEVER,
        "a row of the data can't be used",
        "correct the named line of the data file",
        {
            TUNE: "correct the named line of the data file; spec.datasets[].format in the reference shows what a row may have",
            EVAL: "correct the named line of the data file; spec.benchmarks[].dataset.type in the reference shows what a row may have",
        },
    ),
    FailureClass.EMPTY_DATASET: Failure(
        66,
        Retry.NEVER,
        "no row is left to work on",
        "give a data set with at least one row that can be used",
        {
            TUNE: "give a data set with at least one row that can be used; where rows are too long, raise spec.training.maxLength or "
            "set spec.training.truncation: truncate",
            EVAL: "name data with at least one row in spec.benchmarks[].dataset.uri",
        },
    ),
    FailureClass.DATASET_NOT_FOUND: Failure(
        67,
        Retry.NEVER,
        "no data is at the URI",
        "compare the data's URI with what the store has there (aws s3 ls)",
        {
            TUNE: "compare spec.datasets[].uri and spec.validation.uri with what the store has there (aws s3 ls)",
            EVAL: "compare spec.benchmarks[].dataset.uri with what the store has there (aws s3 ls)",
        },
    ),
    FailureClass.MODEL_NOT_FOUND: Failure(
        68,
        Retry.NEVER,
        "no model that can be read is at the URI",
        "check the URI in spec.model, and a hub's @revision; the folder needs config.json and safetensors weights, or one GGUF "
        "file",
    ),
    FailureClass.BAD_MODEL: Failure(
        89,
        Retry.NEVER,
        "the model's files contradict each other or can't be used together",
        "correct the named file of the model, or name another model in spec.model",
    ),
    FailureClass.UNSAFE_WEIGHTS: Failure(
        72,
        Retry.NEVER,
        "the model's weights are pickle files",
        "pickle weights can run code: name a revision of the model that has safetensors, or load it with transformers and write it "
        "with save_pretrained",
    ),
    FailureClass.CHAT_TEMPLATE_MISSING: Failure(
        74,
        Retry.NEVER,
        "rows of messages need a chat template, and the model has none that fits",
        "name a model whose tokenizer has a chat template in spec.model",
        {
            TUNE: "use rows of prompt and completion (spec.datasets[].format: promptCompletion), or a model in spec.model whose "
            "tokenizer has a chat template",
        },
    ),
    FailureClass.STORAGE_UNREACHABLE: Failure(
        69,
        Retry.COUNTED,
        "the object storage does not answer",
        "check the endpoint and its port (spec.storage.endpoint, else store.endpoint of the chart's values), and the network "
        "policies of this namespace",
    ),
    FailureClass.STORAGE_403: Failure(
        77,
        Retry.NEVER,
        "the object storage refuses the credentials",
        "check the Secret in this namespace that spec.storage.credentialsSecret or store.credentialsSecret of the chart's values "
        "names, and what the bucket's policy allows it",
    ),
    FailureClass.STORAGE_TLS: Failure(
        79,
        Retry.NEVER,
        "the certificate of the object storage is not trusted",
        "put the certificate of the endpoint's authority into a ConfigMap of this namespace, and name it in spec.storage.caBundle or "
        "in store.caBundle of the chart's values",
    ),
    FailureClass.STORAGE_CORRUPT: Failure(
        80,
        Retry.COUNTED,
        "an object in the store is damaged",
        "restore the named object; of an imported model, delete its folder below models/ in the store, and it is imported again",
    ),
    FailureClass.STORAGE_UNSUPPORTED: Failure(
        90,
        Retry.NEVER,
        "the object storage lacks a function of the S3 API that runs need",
        "use a store with conditional writes (If-None-Match) and multipart uploads, by spec.storage.endpoint or the chart's values",
    ),
    FailureClass.HUB_UNREACHABLE: Failure(
        81,
        Retry.COUNTED,
        "the model hub does not answer",
        "check the network to the hub, or copy the model's folder into the store and name it by s3:// in spec.model.uri",
    ),
    FailureClass.MERGE_MISMATCH: Failure(
        82,
        Retry.NEVER,
        "the merged model is not what base and adapter are together",
        "keep the adapter alone",
        {TUNE: "set spec.export.merge: false, which leaves the adapter alone, and report the model as a bug"},
    ),
    FailureClass.ENGINE_FAILED: Failure(
        83,
        Retry.COUNTED,
        "the serving engine did not come up, or ended",
        "read the log tail: the last error in it is the cause",
    ),
    FailureClass.EVALUATION_FAILED: Failure(
        84,
        Retry.NEVER,
        "a benchmark could not be scored",
        "read the log tail: it names the questions or the data that failed",
    ),
    FailureClass.DIVERGED: Failure(
        85,
        Retry.NEVER,
        "the training loss is NaN or infinite",
        "lower the learning rate",
        {TUNE: "set spec.training.learningRate to a tenth, or raise spec.training.warmupRatio"},
    ),
    FailureClass.NOTHING_LEARNED: Failure(
        91,
        Retry.NEVER,
        "the training changed no weight",
        "raise the learning rate or the number of steps",
        {
            TUNE: "raise spec.training.learningRate, or spec.training.epochs and spec.training.maxSteps, and check that the rows have answers to learn from",
        },
    ),
    FailureClass.NAME_CONFLICT: Failure(
        None,
        Retry.NEVER,
        "an object that is not ours has the name of a child",
        "remove the object, or rename the resource (delete it, apply it under another name)",
    ),
    FailureClass.PROCESS_ERROR: Failure(1, Retry.COUNTED, "a process ended and nothing says why", "read the log tail"),
}

BY_EXIT_CODE: dict[int, FailureClass] = {
    row.exit_code: name for name, row in FAILURES.items() if row.exit_code is not None
}

AFTERMATH: dict[FailureClass, int] = {
    FailureClass.PROCESS_ERROR: 1,
    FailureClass.PREEMPTED: 1,
    FailureClass.COLLECTIVE_FAILED: 2,
}
"""Of processes that work together one fails first: failures that may only be what another's led to, likeliest last."""
