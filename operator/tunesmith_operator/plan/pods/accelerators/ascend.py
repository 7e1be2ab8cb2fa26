"""Huawei Ascend NPUs, by the Ascend device plugin and the Ascend container runtime: whole chips of the 910 family.

Many manifests mount /usr/local/Ascend/driver and npu-smi from the host. Here the Ascend container runtime mounts the
driver into every container for which the device plugin sets ASCEND_VISIBLE_DEVICES.
"""

from __future__ import annotations

from tunesmith_api.pods import Accelerator as AcceleratorName
from tunesmith_operator.plan.pods.accelerators.base import Accelerator

HWHIAI_USER = 1000
"""Group HwHiAiUser, which owns /dev/davinci*."""

ASCEND = Accelerator(
    AcceleratorName.ASCEND,
    resource="huawei.com/Ascend910",
    env={"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True"},  # less fragmentation of the device's memory
    groups=(HWHIAI_USER,),
)
