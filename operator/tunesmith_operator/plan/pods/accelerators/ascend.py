"""Huawei Ascend NPUs, by the Ascend device plugin and the Ascend container runtime.

Pods made by hand often mount /usr/local/Ascend/driver and npu-smi from the host. Here that is left to the Ascend
container runtime, which mounts the driver wherever the device plugin has set ASCEND_VISIBLE_DEVICES: host paths are
forbidden under the restricted Pod Security profile.
"""

from __future__ import annotations

HWHIAI_USER = 1000
"""Group HwHiAiUser, to which the driver gives /dev/davinci*."""


def devices(count: int) -> dict[str, str]:
    """Whole chips of the 910 family."""
    return {"huawei.com/Ascend910": str(count)}


def env(computes: bool) -> dict[str, str]:
    """Where it computes: less memory lost to fragments."""
    return {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True"} if computes else {}


def groups() -> list[int]:
    """The group that may open the device files."""
    return [HWHIAI_USER]
