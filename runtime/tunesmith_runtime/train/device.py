"""The device that computes, and the number format it computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from tunesmith_api.common import Accelerator
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import Precision
from tunesmith_runtime.errors import RunFailure

OUT_OF_MEMORY = (
    "out of memory",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)
"""What devices whose errors are plain RuntimeErrors say (CPU, Ascend)."""


CPU_BF16 = ("amx_bf16", "avx512_bf16")
"""Instructions that multiply in bfloat16. With either, LoRA trains about 1.4 times as fast as in float32."""


@dataclass(frozen=True)
class Device:
    """`name` as torch has it; `bf16`: whether it computes in bfloat16 without emulation."""

    name: str
    bf16: bool

    def computes_in_bf16(self, precision: Precision) -> bool:
        """What `precision` means here."""
        return self.bf16 if precision is Precision.AUTO else precision is Precision.BF16


def find_device(accelerator: Accelerator) -> Device:
    """The device that `resources.accelerator` asks for.

    Raises RunFailure (BadSpec) where the pod has none.
    """
    if accelerator is Accelerator.CPU:
        able = torch.cpu.get_capabilities()
        return Device("cpu", bf16=any(able.get(instruction) for instruction in CPU_BF16))
    if accelerator is Accelerator.NVIDIA and torch.cuda.is_available():
        return Device("cuda", bf16=torch.cuda.is_bf16_supported(including_emulation=False))
    if accelerator is Accelerator.ASCEND:
        try:
            import torch_npu  # type: ignore[import-not-found]  # registers torch.npu
        except ImportError as error:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"resources.accelerator is ascend, and the image has no torch_npu: {error}",
                "set images.runtime in the chart's values to an image built on a base with torch_npu (BASE in runtime/Containerfile)",
            ) from error
        if torch_npu.npu.is_available():
            return Device("npu", bf16=True)
    raise RunFailure(
        FailureClass.BAD_SPEC,
        f"resources.accelerator is {accelerator}, and the pod sees no such device",
        "set spec.resources.accelerator to what the nodes have (with cpu, remove spec.resources.count), or choose nodes that have it by "
        "spec.pod.nodeSelector",
    )


@contextmanager
def memory_failures(what: str) -> Iterator[None]:
    """A device that is out of memory while doing `what`, as DeviceOutOfMemory."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not isinstance(error, torch.OutOfMemoryError) and not any(text in str(error) for text in OUT_OF_MEMORY):
            raise
        raise RunFailure(FailureClass.DEVICE_OUT_OF_MEMORY, f"{what}: {str(error).splitlines()[0]}") from error
