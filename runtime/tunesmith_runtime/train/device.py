"""The device that computes, and its number format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from tunesmith_api.failures import FailureClass
from tunesmith_api.pods import Accelerator
from tunesmith_api.training import Precision
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.estimate.devices import CPU_BF16

OUT_OF_MEMORY = (
    "out of memory",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)
"""Messages of devices that raise a plain RuntimeError (CPU, Ascend)."""


@dataclass(frozen=True)
class Device:
    """`name`: torch's name of the device; `bf16`: whether it computes in bfloat16 without emulation."""

    name: str
    bf16: bool

    def computes_in_bf16(self, precision: Precision) -> bool:
        """Return whether a run with `precision` computes in bfloat16 on this device."""
        return self.bf16 if precision is Precision.AUTO else precision is Precision.BF16


def find_device(accelerator: Accelerator) -> Device:
    """Return the device of `resources.accelerator`. Raises RunFailure (BadSpec) if the pod has none."""
    if accelerator is Accelerator.CPU:
        capabilities = torch.cpu.get_capabilities()
        return Device("cpu", bf16=any(capabilities.get(instruction) for instruction in CPU_BF16))
    # PyTorch for ROCm presents AMD's GPUs as torch.cuda.
    is_rocm = torch.version.hip is not None
    if accelerator is (Accelerator.AMD if is_rocm else Accelerator.NVIDIA) and torch.cuda.is_available():
        return Device("cuda", bf16=torch.cuda.is_bf16_supported(including_emulation=False))
    if accelerator is Accelerator.ASCEND:
        try:
            import torch_npu  # type: ignore[import-not-found]  # registers torch.npu
        except ImportError as error:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"resources.accelerator is ascend, and the image has no torch_npu: {error}",
                "set accelerators.ascend.image in the chart's values to an image built with LOCK=ascend (docs/images.md)",
            ) from error
        if torch_npu.npu.is_available():
            return Device("npu", bf16=True)
    raise RunFailure(
        FailureClass.BAD_SPEC,
        f"resources.accelerator is {accelerator}, and the pod has no such device",
        "set spec.resources.accelerator to the accelerator of the nodes (with cpu, remove spec.resources.count), or select nodes that have "
        "it with spec.pod.nodeSelector",
    )


@contextmanager
def memory_failures(activity: str) -> Iterator[None]:
    """Within the block, raise a lack of device memory as RunFailure (DeviceOutOfMemory); `activity` begins the message."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not isinstance(error, torch.OutOfMemoryError) and not any(text in str(error) for text in OUT_OF_MEMORY):
            raise
        raise RunFailure(FailureClass.DEVICE_OUT_OF_MEMORY, f"{activity}: {str(error).splitlines()[0]}") from error
