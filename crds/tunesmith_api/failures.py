"""Failure classes: the words of `status.lastFailure.class`, the runtime's exit codes, and what to do about each.

The exit code is part of the contract: a container that ends with one of these says why even where its termination
message is lost. Codes from 64 on follow sysexits(3) where it has a word for the cause. A code never changes its meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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
    happened, and the hint: what to do about it."""

    exit_code: int | None
    retry: Retry
    meaning: str
    hint: str


FAILURES: dict[FailureClass, Failure] = {
    FailureClass.UNSCHEDULABLE: Failure(
        None,
        Retry.WAITS,
        "no node can take the pod",
        "ask for less in spec.resources, free or add a node with the named resource, or fix spec.pod.nodeSelector and tolerations",
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
        "check the image name in the chart's values and spec.pod.imagePullSecrets",
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
        "an admission policy refused the pod: read the message, then change spec.pod or the policy",
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
        "raise spec.resources.memory, or lower training.microBatchSize or training.maxLength",
    ),
    FailureClass.DEVICE_OUT_OF_MEMORY: Failure(
        71,
        Retry.NEVER,
        "the memory of what computes is full: the GPU's, the NPU's, or the pod's with accelerator cpu",
        "lower training.microBatchSize or training.maxLength, turn on gradientCheckpointing, or ask for more devices",
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
        88, Retry.NEVER, "/dev/shm of the pod is full", "set or raise spec.resources.sharedMemory, say to 8Gi"
    ),
    FailureClass.EVICTED: Failure(
        None,
        Retry.ALWAYS,
        "the node ran short of memory, disk or process numbers and ended the pod",
        "the node ran short of a resource: set spec.resources so that the scheduler knows what the pod needs",
    ),
    FailureClass.NODE_LOST: Failure(
        None,
        Retry.ALWAYS,
        "the pod's node is gone, shuts down or does not answer",
        "the node went away; the work goes on from the last checkpoint",
    ),
    FailureClass.PREEMPTED: Failure(
        75,
        Retry.ALWAYS,
        "the pod was asked to stop: a drain, a higher priority, a deletion",
        "the pod was asked to stop; the work goes on from the last checkpoint",
    ),
    FailureClass.DEADLINE_EXCEEDED: Failure(
        None,
        Retry.NEVER,
        "it took longer than spec.deadline, or waited longer than spec.pendingDeadline",
        "create the resource anew with a longer spec.deadline or spec.pendingDeadline, or make the job smaller",
    ),
    FailureClass.DISK_FULL: Failure(
        73,
        Retry.NEVER,
        "the pod's disk is full, or it used more of it than it may",
        "raise spec.resources.ephemeralStorage, or use a node with more disk",
    ),
    FailureClass.BAD_SPEC: Failure(
        64,
        Retry.NEVER,
        "the spec asks for what can't be done",
        "change the named field of the spec; a job's spec is fixed, so create the job anew",
    ),
    FailureClass.BAD_ROW: Failure(
        65,
        Retry.NEVER,
        "a row of the data can't be used",
        "mend the named line of the data file; see the documented row formats",
    ),
    FailureClass.EMPTY_DATASET: Failure(
        66, Retry.NEVER, "no row is left to work on", "give a data set with at least one row that can be used"
    ),
    FailureClass.DATASET_NOT_FOUND: Failure(
        67, Retry.NEVER, "no data is at the URI", "check the data set's URI; list the bucket with your S3 client"
    ),
    FailureClass.MODEL_NOT_FOUND: Failure(
        68,
        Retry.NEVER,
        "no model that can be read is at the URI",
        "check the model's URI and revision; the folder needs config.json and safetensors weights, or one GGUF file",
    ),
    FailureClass.BAD_MODEL: Failure(
        89,
        Retry.NEVER,
        "the model's files contradict each other or can't be used together",
        "fix the named file of the model, or name another model",
    ),
    FailureClass.UNSAFE_WEIGHTS: Failure(
        72,
        Retry.NEVER,
        "the model's weights are pickle files",
        "pickle weights can run code: convert the model to safetensors",
    ),
    FailureClass.CHAT_TEMPLATE_MISSING: Failure(
        74,
        Retry.NEVER,
        "rows of messages need a chat template, and the model has none that fits",
        "use rows of prompt and completion, or a model whose tokenizer has a chat template",
    ),
    FailureClass.STORAGE_UNREACHABLE: Failure(
        69,
        Retry.COUNTED,
        "the object storage does not answer",
        "check the storage endpoint, its port and the network policies of this namespace",
    ),
    FailureClass.STORAGE_403: Failure(
        77,
        Retry.NEVER,
        "the object storage refuses the credentials",
        "check the credentials Secret in this namespace and what the bucket's policy allows it",
    ),
    FailureClass.STORAGE_TLS: Failure(
        79,
        Retry.NEVER,
        "the certificate of the object storage is not trusted",
        "name the endpoint's certificate authority in storage.caBundle",
    ),
    FailureClass.STORAGE_CORRUPT: Failure(
        80,
        Retry.COUNTED,
        "an object in the store is damaged",
        "an object does not match its recorded sha256: restore it, or import the model anew",
    ),
    FailureClass.STORAGE_UNSUPPORTED: Failure(
        90,
        Retry.NEVER,
        "the object storage lacks a function of the S3 API that runs need",
        "use a store with conditional writes (If-None-Match) and multipart uploads",
    ),
    FailureClass.HUB_UNREACHABLE: Failure(
        81,
        Retry.COUNTED,
        "the model hub does not answer",
        "check the network to the hub, or import the model into the store and name it by s3://",
    ),
    FailureClass.MERGE_MISMATCH: Failure(
        82,
        Retry.NEVER,
        "the merged model is not what base and adapter are together",
        "the merged model does not compute what base and adapter do: set export.merge: false and report the model",
    ),
    FailureClass.ENGINE_FAILED: Failure(
        83,
        Retry.COUNTED,
        "the serving engine did not come up, or ended",
        "the serving engine did not come up: read the log tail; a smaller model or more memory may help",
    ),
    FailureClass.EVALUATION_FAILED: Failure(
        84, Retry.NEVER, "a benchmark could not be scored", "read the log tail and the report in the run's folder"
    ),
    FailureClass.DIVERGED: Failure(
        85,
        Retry.NEVER,
        "the training loss is no number any more",
        "the loss became NaN or infinite: lower training.learningRate or raise training.warmupRatio",
    ),
    FailureClass.NOTHING_LEARNED: Failure(
        91,
        Retry.NEVER,
        "the training changed no weight",
        "raise training.learningRate or the number of steps, and check that the rows have answers to learn from",
    ),
    FailureClass.NAME_CONFLICT: Failure(
        None,
        Retry.NEVER,
        "an object that is not ours has the name of a child",
        "an object of that name belongs to somebody else: rename the resource or remove the object",
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

LINE_CHARACTERS = 2000
"""So much of a line is read: the causes stand at its beginning, and the text may be anybody's."""

SYMPTOMS: tuple[tuple[FailureClass, re.Pattern[str]], ...] = (
    (
        FailureClass.SHARED_MEMORY_FULL,
        re.compile(
            r"insufficient shared memory|out of shared memory|unable to (?:open|allocate|write to) shared memory"
            r"|unable to resize file <.*shm|No space left on device.*/dev/shm|/dev/shm.*No space left on device"
        ),
    ),
    (
        FailureClass.DEVICE_OUT_OF_MEMORY,
        re.compile(
            r"\b(?:CUDA|NPU|HIP|XPU) out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
            r"|cudaErrorMemoryAllocation|EL0004|No available memory for the cache blocks"
            r"|Free memory on device .*is less than desired GPU memory utilization"
            r"|DefaultCPUAllocator: (?:can't allocate|not enough) memory"
        ),
    ),
    (
        FailureClass.COLLECTIVE_FAILED,
        re.compile(
            r"collective operation timeout|DistBackendError|DistNetworkError|DistStoreError|RendezvousTimeoutError"
            r"|NCCL error|nccl(?:System|Internal|Remote|UnhandledCuda)Error|HCCL (?:function )?error|call hccl api failed"
            r"|\bEI000[26]\b|third_party/gloo"
        ),
    ),
    (
        FailureClass.DEVICE_FAILED,
        re.compile(
            r"uncorrectable ECC error|CUDA-capable device|No CUDA GPUs are available|Found no NVIDIA driver"
            r"|CUDA driver version is insufficient|Driver/library version mismatch|GPU is lost|fallen off the bus"
            r"|nvidia-container-cli: (?:initialization|device) error|unresolvable CDI devices"
        ),
    ),
    (FailureClass.DISK_FULL, re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)),
)
"""What libraries, engines and drivers say in exceptions and logs. The first that fits has the word: what stands above
is surer than what is below."""


@dataclass(frozen=True)
class Recognised:
    """A cause that a text gives away."""

    class_: FailureClass
    line: str
    """The line that says so."""


def recognise(text: str) -> Recognised | None:
    """The cause that an exception's message or the end of a log gives away; None where it says nothing known."""
    lines = [line[:LINE_CHARACTERS] for line in text.splitlines()]
    return next(
        (Recognised(name, line.strip()) for name, pattern in SYMPTOMS for line in lines if pattern.search(line)), None
    )


SIGNALS: dict[int, tuple[str, str]] = {
    132: (
        "an illegal instruction",
        "the image's libraries need a newer CPU: choose other nodes with spec.pod.nodeSelector",
    ),
    134: ("an abort", "a native library gave up: read the log tail"),
    135: ("a bus error", "most often /dev/shm is full: set or raise spec.resources.sharedMemory"),
    136: ("an arithmetic error", "a native library crashed: read the log tail"),
    139: (
        "a segmentation fault",
        "a native library crashed: read the log tail; an image of other library versions may help",
    ),
}
"""Exit codes of a process that a signal of its own ended: what it is called, and what to do."""
