"""AMD GPUs, by the AMD GPU device plugin (https://instinct.docs.amd.com/projects/k8s-device-plugin): whole GPUs.

The plugin brings /dev/kfd and the GPU's /dev/dri into the container. Their group is the node's `render`, whose number differs between
distributions: `accelerators.amd.groups` in the chart's values. RCCL reads the variables of NCCL.
"""

from __future__ import annotations

from tunesmith_api.pods import Accelerator as AcceleratorName
from tunesmith_operator.plan.pods.accelerators.base import Accelerator

AMD = Accelerator(
    AcceleratorName.AMD,
    resource="amd.com/gpu",
    env={"PYTORCH_HIP_ALLOC_CONF": "expandable_segments:True"},  # less fragmentation of the device's memory
    env_together=lambda _: {"NCCL_DEBUG": "WARN"},  # the cause of an error in the log
)
