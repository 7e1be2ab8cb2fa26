"""Causes of failures, by the error texts of libraries and the signals that end processes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunesmith_api.failures import FailureClass

LINE_CHARACTERS = 2000
"""Characters of a line that are matched. Causes stand at its beginning, and a log may contain any text."""

SIGNALS: dict[int, tuple[str, str]] = {
    132: (
        "an illegal instruction",
        "choose other nodes with spec.pod.nodeSelector: the image's libraries need a newer CPU",
    ),
    134: ("an abort", "read the log tail: a native library gave up"),
    135: ("a bus error", "raise spec.resources.sharedMemory, for example to 8Gi: most often /dev/shm is full"),
    136: ("an arithmetic error", "read the log tail: a native library crashed"),
    139: (
        "a segmentation fault",
        "read the log tail, and try an image with other library versions: a native library crashed",
    ),
}
"""Exit code of a process that a signal ended -> name of the signal, and hint."""

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
            r"|\bEI000[26]\b|HCCL OP RETRY FAILED|SUSPECT REMOTE ERROR|third_party/gloo"
        ),
    ),
    (
        FailureClass.DEVICE_FAILED,
        re.compile(
            r"uncorrectable ECC error|CUDA-capable device|No CUDA GPUs are available|Found no NVIDIA driver"
            r"|CUDA driver version is insufficient|Driver/library version mismatch|GPU is lost|fallen off the bus"
            r"|nvidia-container-cli: (?:initialization|device) error|unresolvable CDI devices"
            r"|\b(?:UCE|HBM MULTI BIT ECC|SUSPECT MEM|HCCS LINK) ERROR"  # of torch_npu
        ),
    ),
    (FailureClass.DISK_FULL, re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)),
)
"""Errors of libraries, engines and drivers in exceptions and logs, the most specific first: the first match decides."""


@dataclass(frozen=True)
class Symptom:
    """A known error in a text."""

    class_: FailureClass
    line: str
    """The line that contains it."""


def find_symptom(text: str) -> Symptom | None:
    """Return the known error in the message of an exception or the end of a log; None if there is none."""
    lines = [line[:LINE_CHARACTERS] for line in text.splitlines()]
    return next(
        (Symptom(name, line.strip()) for name, pattern in SYMPTOMS for line in lines if pattern.search(line)), None
    )
