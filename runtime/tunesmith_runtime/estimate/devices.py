"""Accelerators: memory, speed and how node labels name them. Data sheets of the vendors; speeds are dense bfloat16 (float16
where a device has no bfloat16)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith_api.pods import Accelerator

GIB = 1 << 30
CPU_BF16 = ("amx_bf16", "avx512_bf16")
"""CPU instructions for products in bfloat16. With either, LoRA trains about 1.4 times as fast as in float32."""


@dataclass(frozen=True)
class Device:
    """An accelerator."""

    name: str
    accelerator: Accelerator
    pattern: str
    """Regular expression for the value of a node label, in lower case: nvidia.com/gpu.product, or that of a cloud provider."""
    memory_gib: float
    teraflops: float
    """Dense matrix products in bfloat16, 10^12 operations per second."""
    gigabytes_per_second: float
    """Bandwidth of the memory."""
    source: str

    @property
    def memory_bytes(self) -> int:
        """Memory in bytes."""
        return round(self.memory_gib * GIB)

    @property
    def has_bf16(self) -> bool:
        """Whether it computes in bfloat16."""
        return not self.name.startswith(("T4", "V100", "Ascend 910A"))


NVIDIA, ASCEND, AMD = Accelerator.NVIDIA, Accelerator.ASCEND, Accelerator.AMD
SHEETS = "https://www.nvidia.com/en-us/data-center/"
GEFORCE = "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
AMPERE = "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf"
INSTINCT = "https://www.amd.com/en/products/accelerators/instinct/"
HUAWEI = "https://www.hiascend.com/en/hardware"

DEVICES: tuple[Device, ...] = (
    Device("T4", NVIDIA, r"\bt4\b", 15, 65, 320, SHEETS + "tesla-t4/"),
    Device("L4", NVIDIA, r"\bl4\b", 22.5, 121, 300, SHEETS + "l4/"),
    Device("A10G", NVIDIA, r"\ba10g\b", 22.5, 70, 600, "https://d1.awsstatic.com/product-marketing/ec2/NVIDIA_AWS_A10G_DataSheet_FINAL_02_17_2022.pdf"),
    Device("A10", NVIDIA, r"\ba10\b", 22.5, 125, 600, SHEETS + "products/a10-gpu/"),
    Device("RTX 3090", NVIDIA, r"rtx-?3090", 24, 71, 936, AMPERE),
    Device("RTX 4090", NVIDIA, r"rtx-?4090", 24, 165, 1008, GEFORCE),
    Device("RTX 5090", NVIDIA, r"rtx-?5090", 32, 210, 1792, "https://images.nvidia.com/aem-dam/Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf"),
    Device("V100 16 GB", NVIDIA, r"\bv100\b(?!.*32)", 16, 125, 900, SHEETS + "v100/"),
    Device("V100 32 GB", NVIDIA, r"\bv100\b.*32", 32, 125, 900, SHEETS + "v100/"),
    Device("A100 40 GB", NVIDIA, r"\ba100\b(?!.*80)", 40, 312, 1555, SHEETS + "a100/"),
    Device("RTX A6000", NVIDIA, r"rtx-?a6000|\ba6000\b", 48, 155, 768, SHEETS + "../design-visualization/rtx-a6000/"),
    Device("RTX 6000 Ada", NVIDIA, r"6000-?ada", 48, 182, 960, SHEETS + "../design-visualization/rtx-6000/"),
    Device("L20", NVIDIA, r"\bl20\b", 48, 119.5, 864, SHEETS),
    Device("L40S", NVIDIA, r"\bl40s\b", 45, 362, 864, SHEETS + "l40s/"),
    Device("L40", NVIDIA, r"\bl40\b", 45, 181, 864, SHEETS + "l40/"),
    Device("A800 80 GB", NVIDIA, r"\ba800\b", 80, 312, 2039, SHEETS + "a100/"),
    Device("A100 80 GB", NVIDIA, r"\ba100\b.*80", 80, 312, 2039, SHEETS + "a100/"),
    Device("H100 PCIe", NVIDIA, r"\bh100\b.*pcie", 80, 756, 2000, SHEETS + "h100/"),
    Device("H100 NVL", NVIDIA, r"\bh100\b.*nvl", 93.6, 835, 3900, SHEETS + "h100/"),
    Device("H100", NVIDIA, r"\bh100\b(?!.*(pcie|nvl))", 80, 989, 3350, SHEETS + "h100/"),
    Device("H800", NVIDIA, r"\bh800\b", 80, 989, 3350, SHEETS + "h100/"),
    Device("H20", NVIDIA, r"\bh20\b", 96, 148, 4000, SHEETS),
    Device("GH200", NVIDIA, r"\bgh200\b", 96, 989, 4000, SHEETS + "grace-hopper-superchip/"),
    Device("H200", NVIDIA, r"\bh200\b", 140.4, 989, 4800, SHEETS + "h200/"),
    Device("B200", NVIDIA, r"\bg?b200\b", 179, 2250, 8000, SHEETS + "dgx-b200/"),
    Device("MI210", AMD, r"mi210", 64, 181, 1638, INSTINCT + "mi200/mi210.html"),
    Device("MI300X", AMD, r"mi300x", 192, 1307, 5300, INSTINCT + "mi300/mi300x.html"),
    Device("MI325X", AMD, r"mi325x", 256, 1307, 6000, INSTINCT + "mi300/mi325x.html"),
    Device("Ascend 910A", ASCEND, r"910a\b|910-?(pro)?a$", 32, 256, 1200, HUAWEI),
    Device("Ascend 910B", ASCEND, r"910b", 64, 313, 1600, HUAWEI),
    Device("Ascend 910C", ASCEND, r"910c|910_93", 128, 752, 3200, HUAWEI),
)  # fmt: skip
"""The accelerators that are known. Memory is what the driver reports as usable."""


PARTITION_SHARE = 0.95
"""Share of the gigabytes in the name of a MIG profile that the partition has in GiB: 4,864 MiB with 1g.5gb, 40,192 MiB with 3g.40gb."""


def partition_bytes(profile: str) -> int:
    """Return the memory of a MIG partition such as mig-3g.40gb, in bytes."""
    gigabytes = int(profile.partition(".")[2].partition("gb")[0])
    return round(gigabytes * PARTITION_SHARE * GIB)


def find_device(labels: Iterable[str]) -> Device | None:
    """Return the accelerator that a value of a node selector names, such as NVIDIA-L4; None if none does."""
    for value in labels:
        text = re.sub(r"[\s_]+", "-", value.lower())
        found = next((device for device in DEVICES if re.search(device.pattern, text)), None)
        if found:
            return found
    return None


def smallest_that_fits(accelerator: Accelerator, memory_bytes: int) -> Device | None:
    """Return the known accelerator of a vendor with the least memory that holds `memory_bytes`; None if none does.

    Devices that do not compute in bfloat16 are not proposed.
    """
    fitting = (
        each
        for each in DEVICES
        if each.accelerator is accelerator and each.has_bf16 and each.memory_bytes >= memory_bytes
    )
    return min(fitting, key=lambda each: each.memory_gib, default=None)
