"""Failure classes: the values of `status.lastFailure.class`, the runtime's exit codes, and what to do about each.

Exit codes are part of the contract: a container that exits with a code of this table names its cause even if its termination
message is lost. Codes from 64 on follow sysexits(3) where it has the cause. A code never changes its meaning.
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
    WILL_NOT_FIT = "WillNotFit"
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
    HUB_FORBIDDEN = "HubForbidden"
    HUB_RATE_LIMITED = "HubRateLimited"
    HUB_CORRUPT = "HubCorrupt"
    MERGE_MISMATCH = "MergeMismatch"
    RELOAD_MISMATCH = "ReloadMismatch"
    ENGINE_FAILED = "EngineFailed"
    EVALUATION_FAILED = "EvaluationFailed"
    JUDGE_FAILED = "JudgeFailed"
    REWARD_CODE_FAILED = "RewardCodeFailed"
    DIVERGED = "Diverged"
    NOTHING_LEARNED = "NothingLearned"
    NAME_CONFLICT = "NameConflict"
    PROCESS_ERROR = "ProcessError"


class Retry(StrEnum):
    """What the operator does after a failure of a class."""

    WAITS = "Waits"
    """Wait: the pod starts by itself when the cause is gone. A pod that has ended for such a cause is not retried."""
    NEVER = "Never"
    COUNTED = "Counted"
    ALWAYS = "Always"


RETRY_TEXTS: dict[Retry, str] = {
    Retry.WAITS: "the pod starts once the cause is gone",
    Retry.NEVER: "not retried",
    Retry.COUNTED: "retried up to spec.retries times",
    Retry.ALWAYS: "always retried",
}


@dataclass(frozen=True)
class Failure:
    """One row of the table."""

    exit_code: int | None
    """Exit code of our containers; None if no container exits for this cause."""
    retry: Retry
    meaning: str
    hint: str
    """What to do. Fields of the resource begin with `spec.`."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """Kind -> its own hint, if the kind has other fields for the remedy."""

    def hint_for(self, kind: str) -> str:
        """Return the hint for a resource of `kind`."""
        return self.hints.get(kind, self.hint)


TUNE, EVAL, SERVE = "FineTuneJob", "EvalJob", "InferenceService"


FAILURES: dict[FailureClass, Failure] = {
    FailureClass.UNSCHEDULABLE: Failure(
        None,
        Retry.WAITS,
        "no node fits the pod",
        "lower spec.resources, free or add a node with the named resource, or correct spec.pod.nodeSelector and "
        "spec.pod.tolerations",
    ),
    FailureClass.VOLUME_UNAVAILABLE: Failure(
        None,
        Retry.WAITS,
        "a volume of the pod does not exist, is not bound, or cannot be attached to its node",
        "check the named PersistentVolumeClaim with kubectl describe; the pod starts by itself when the volume is available",
    ),
    FailureClass.IMAGE_PULL: Failure(
        None,
        Retry.WAITS,
        "an image cannot be pulled",
        "check the image's name in the chart's values (images) and the Secrets in spec.pod.imagePullSecrets",
    ),
    FailureClass.QUOTA_EXCEEDED: Failure(
        None,
        Retry.WAITS,
        "a ResourceQuota of the namespace does not admit the pod",
        "raise the namespace's ResourceQuota, or lower spec.resources",
    ),
    FailureClass.POD_REFUSED: Failure(
        None,
        Retry.WAITS,
        "an admission rule of the cluster rejects the pod",
        "change what the named rule rejects in spec.pod or spec.resources, or ask its owner to change the rule",
    ),
    FailureClass.POD_START: Failure(
        None,
        Retry.WAITS,
        "the kubelet cannot start a container",
        "create the missing Secret, ConfigMap or volume in the pod's namespace",
    ),
    FailureClass.NODE_REFUSED: Failure(
        None,
        Retry.ALWAYS,
        "the kubelet of the scheduled node rejected the pod: no room, or no healthy device",
        "wait for the next pod, which is created by itself; if this repeats, check the node's device plugin and drain the node",
    ),
    FailureClass.OOM_KILLED: Failure(
        137,
        Retry.COUNTED,
        "a container used more memory than its limit",
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
        "the memory of the GPU or NPU is full, or that of the pod with accelerator cpu",
        "use a smaller model, or nodes whose devices have more memory",
        {
            TUNE: "halve spec.training.microBatchSize (default: 8 at most), set spec.training.gradientCheckpointing: true, or use "
            "nodes whose devices have more memory",
            EVAL: "double spec.resources.count unless status.engine is transformers, use nodes whose devices have more memory, or "
            "evaluate a smaller model",
            SERVE: "double spec.resources.count unless status.engine is transformers, lower spec.maxModelLength, use nodes whose "
            "devices have more memory, or serve a smaller model",
        },
    ),
    FailureClass.DEVICE_FAILED: Failure(
        87,
        Retry.COUNTED,
        "a GPU or NPU, or its driver, failed",
        "check the node's kernel log and driver (nvidia-smi, npu-smi), and drain the node if its device is broken",
    ),
    FailureClass.COLLECTIVE_FAILED: Failure(
        86,
        Retry.COUNTED,
        "the processes of a run lost each other (NCCL, HCCL, gloo)",
        "look for an earlier failure of another pod of the run; if there is none, check the network between the nodes",
    ),
    FailureClass.SHARED_MEMORY_FULL: Failure(
        88,
        Retry.NEVER,
        "/dev/shm of the pod is full",
        "raise spec.resources.sharedMemory, for example to 8Gi; if spec.resources.memory is set, raise it by as much",
    ),
    FailureClass.EVICTED: Failure(
        None,
        Retry.ALWAYS,
        "the node ran short of memory, disk or process IDs and evicted the pod",
        "set spec.resources.memory and spec.resources.ephemeralStorage to what the pod needs, so that it is scheduled to a node "
        "that has it",
    ),
    FailureClass.NODE_LOST: Failure(
        None,
        Retry.ALWAYS,
        "the pod's node is gone, shuts down or does not answer",
        "nothing needs to be done: another pod takes its place",
        {
            TUNE: "nothing needs to be done: a new pod resumes from the last checkpoint",
            EVAL: "nothing needs to be done: a new pod repeats the evaluation",
        },
    ),
    FailureClass.PREEMPTED: Failure(
        75,
        Retry.ALWAYS,
        "the pod was stopped by a drain, a higher priority or a deletion",
        "nothing needs to be done: another pod takes its place",
        {
            TUNE: "nothing needs to be done: a new pod resumes from the last checkpoint",
            EVAL: "nothing needs to be done: a new pod repeats the evaluation",
        },
    ),
    FailureClass.DEADLINE_EXCEEDED: Failure(
        None,
        Retry.NEVER,
        "the job took longer than spec.deadline, or waited longer than spec.pendingDeadline",
        "create the resource again with a longer spec.deadline or spec.pendingDeadline, or without them",
    ),
    FailureClass.DISK_FULL: Failure(
        73,
        Retry.NEVER,
        "the pod's disk is full, or the pod used more of it than its limit",
        "raise spec.resources.ephemeralStorage, or set it, or choose nodes with more disk by spec.pod.nodeSelector",
    ),
    FailureClass.WILL_NOT_FIT: Failure(
        95,
        Retry.NEVER,
        "the estimate exceeds the memory of the devices, and spec.fit is Refuse",
        "choose a device with more memory",
        {
            TUNE: "set spec.training.microBatchSize: 1 and spec.training.gradientCheckpointing: true, name a device with more memory "
            "in spec.pod.nodeSelector and spec.resources.deviceMemory, or set spec.fit: Warn"
        },
    ),
    FailureClass.BAD_SPEC: Failure(
        64,
        Retry.NEVER,
        "the spec cannot be carried out",
        "change the named field of the spec",
    ),
    FailureClass.BAD_ROW: Failure(
        65,
        Retry.NEVER,
        "a row of the data is invalid",
        "correct the named line of the data file",
        {
            TUNE: "correct the named line of the data file; the reference of spec.datasets[].format shows the format of a row",
            EVAL: "correct the named line of the data file; the reference of spec.benchmarks[].dataset.type shows the format of a row",
        },
    ),
    FailureClass.EMPTY_DATASET: Failure(
        66,
        Retry.NEVER,
        "the data has no usable row",
        "name a data set with at least one usable row",
        {
            TUNE: "name a data set with at least one usable row; if the rows are too long, raise spec.training.maxLength or set "
            "spec.training.truncation: truncate",
            EVAL: "name data with at least one usable row in spec.benchmarks[].dataset.uri",
        },
    ),
    FailureClass.DATASET_NOT_FOUND: Failure(
        67,
        Retry.NEVER,
        "the URI has no data",
        "compare the URI of the data with the objects in the store (aws s3 ls)",
        {
            TUNE: "compare spec.datasets[].uri and spec.validation.uri with the objects in the store (aws s3 ls)",
            EVAL: "compare spec.benchmarks[].dataset.uri with the objects in the store (aws s3 ls)",
        },
    ),
    FailureClass.MODEL_NOT_FOUND: Failure(
        68,
        Retry.NEVER,
        "the URI has no readable model",
        "check the URI in spec.model, and the @revision of a hub; the folder needs config.json and safetensors weights, or one "
        "GGUF file",
    ),
    FailureClass.BAD_MODEL: Failure(
        89,
        Retry.NEVER,
        "the model's files contradict each other or cannot be used together",
        "correct the named file of the model, or name another model in spec.model",
    ),
    FailureClass.UNSAFE_WEIGHTS: Failure(
        72,
        Retry.NEVER,
        "the model's weights are pickle files, which can run code",
        "name a revision of the model that has safetensors, or load the model with transformers and write it with save_pretrained",
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
        "check the endpoint and its port (spec.storage.endpoint, or store.endpoint in the chart's values), and the network "
        "policies of the namespace",
    ),
    FailureClass.STORAGE_403: Failure(
        77,
        Retry.NEVER,
        "the object storage refuses the credentials",
        "check the Secret that spec.storage.credentialsSecret (or store.credentialsSecret in the chart's values) names in this "
        "namespace, and the rights that the bucket's policy gives it",
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
        "restore the named object; if it belongs to an imported model, delete the model's folder below models/ in the store, and it "
        "is imported again",
    ),
    FailureClass.STORAGE_UNSUPPORTED: Failure(
        90,
        Retry.NEVER,
        "the object storage lacks a function of the S3 API that runs need",
        "name a store with conditional writes (If-None-Match) and multipart uploads in spec.storage.endpoint or in the chart's values",
    ),
    FailureClass.HUB_UNREACHABLE: Failure(
        81,
        Retry.COUNTED,
        "the hub does not answer",
        "check the network to the hub; list a mirror that is reachable in hub.endpoints of the chart's values, or, for names of the "
        "catalogue, put the other hub first in hub.order; or copy the files into the store and name their s3:// URI in place of the hub's",
    ),
    FailureClass.HUB_FORBIDDEN: Failure(
        92,
        Retry.NEVER,
        "the hub refuses access: the repository is gated or private, or the token is wrong",
        "accept the license on the repository's page with the token's account, and put the token into the Secret that hub.tokenSecret of "
        "the chart's values names in this namespace",
    ),
    FailureClass.HUB_RATE_LIMITED: Failure(
        93,
        Retry.COUNTED,
        "the hub refuses further requests for now (429)",
        "wait for the next attempt, which continues where this one ended; if this repeats, put a token into the Secret that "
        "hub.tokenSecret of the chart's values names, or list a mirror in hub.endpoints",
    ),
    FailureClass.HUB_CORRUPT: Failure(
        94,
        Retry.COUNTED,
        "a file from the hub is truncated, or differs from the digest that the hub lists, or changed during the download",
        "wait for the next attempt, which downloads this file again; if this repeats, name a commit as @revision in the URI, or "
        "remove the named server from hub.endpoints of the chart's values",
    ),
    FailureClass.MERGE_MISMATCH: Failure(
        82,
        Retry.NEVER,
        "the merged model does not compute what base and adapter compute together",
        "use the adapter without merging it",
        {TUNE: "set spec.export.merge: false, which publishes the adapter only, and report the model as a bug"},
    ),
    FailureClass.RELOAD_MISMATCH: Failure(
        98,
        Retry.NEVER,
        "the saved weights, loaded again, do not compute what the trained model computed",
        "train with another tuner",
        {TUNE: "set spec.tuner: lora, or full if it is lora, and report the model and the tuner as a bug"},
    ),
    FailureClass.ENGINE_FAILED: Failure(
        83,
        Retry.COUNTED,
        "the serving engine did not start, or ended",
        "read the log tail: its last error is the cause",
    ),
    FailureClass.EVALUATION_FAILED: Failure(
        84,
        Retry.NEVER,
        "a benchmark could not be scored",
        "read the log tail: it names the questions or the data that failed",
    ),
    FailureClass.JUDGE_FAILED: Failure(
        96,
        Retry.COUNTED,
        "the judge of a reward does not answer, or answers without a score",
        "check the log of the judge's server, and the network policies of the namespace",
        {
            TUNE: "check spec.rewards[].judge.url, the log of its server, and the network policies of the namespace; for a judge that is "
            "slow, raise spec.rewards[].judge.timeout, or lower spec.rewards[].judge.concurrency"
        },
    ),
    FailureClass.REWARD_CODE_FAILED: Failure(
        97,
        Retry.NEVER,
        "the code of a reward fails, or returns no rewards",
        "correct the code in the ConfigMap, and apply the resource again",
        {TUNE: "correct the code in the ConfigMap that spec.rewards[].code names, and create the job again"},
    ),
    FailureClass.DIVERGED: Failure(
        85,
        Retry.NEVER,
        "the training loss is NaN or infinite, or rises to several times its first value",
        "lower the learning rate",
        {TUNE: "set spec.training.learningRate to a tenth, or raise spec.training.warmupRatio"},
    ),
    FailureClass.NOTHING_LEARNED: Failure(
        91,
        Retry.NEVER,
        "the training changed no weight",
        "raise the learning rate or the number of steps",
        {
            TUNE: "raise spec.training.learningRate, or spec.training.epochs and spec.training.maxSteps, and check that the rows have "
            "answers to learn from",
        },
    ),
    FailureClass.NAME_CONFLICT: Failure(
        None,
        Retry.NEVER,
        "a child cannot be created: another object, which does not belong to the resource, has its name",
        "delete the other object, or rename the resource (delete it and apply it under another name)",
    ),
    FailureClass.PROCESS_ERROR: Failure(1, Retry.COUNTED, "a process ended without a known cause", "read the log tail"),
}

BY_EXIT_CODE: dict[int, FailureClass] = {
    row.exit_code: name for name, row in FAILURES.items() if row.exit_code is not None
}

SECONDARY_RANK: dict[FailureClass, int] = {
    FailureClass.PROCESS_ERROR: 1,
    FailureClass.PREEMPTED: 1,
    FailureClass.COLLECTIVE_FAILED: 2,
}
"""Classes of secondary failures in a process group -> rank: the higher, the likelier another process failed first."""


def failure_class(text: str) -> FailureClass:
    """Return a class by its name in any case, or by an exit code. Raises ValueError with the known classes."""
    if text.isdecimal() and int(text) in BY_EXIT_CODE:
        return BY_EXIT_CODE[int(text)]
    found = {name.lower(): name for name in FailureClass}.get(text.lower())
    if found is None:
        raise ValueError(f"unknown failure {text!r} (failure classes: {', '.join(FailureClass)})")
    return found


def explanation(failure: FailureClass) -> str:
    """Meaning, retry policy and hints of a failure class, as text."""
    row = FAILURES[failure]
    code = "no exit code of ours" if row.exit_code is None else f"exit code {row.exit_code}"
    hints = "\n".join((row.hint, *(f"{kind}: {hint}" for kind, hint in row.hints.items())))
    return f"{failure}: {row.meaning} ({code}; {RETRY_TEXTS[row.retry]})\n{hints}"
