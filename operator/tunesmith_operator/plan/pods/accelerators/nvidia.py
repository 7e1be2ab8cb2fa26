"""NVIDIA GPUs, by the NVIDIA device plugin for Kubernetes: whole GPUs, whose device files are open to all users, or partitions
of them (MIG with the strategy `mixed`, https://docs.nvidia.com/datacenter/cloud-native/kubernetes/latest/index.html).

On a node whose default container runtime is NVIDIA's, an image with NVIDIA_VISIBLE_DEVICES=all gives a container every GPU
of the node, also without a request. `void` prevents that.

Processes that train together use NCCL (https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html). It finds the network interfaces
itself, and torch's timeout ends its operations. Where it takes the wrong interface, NCCL_SOCKET_IFNAME belongs in `accelerators.nvidia.env`
of the chart's values.
"""

from __future__ import annotations

from tunesmith_api.pods import Accelerator as AcceleratorName
from tunesmith_operator.plan.pods.accelerators.base import Accelerator

NVIDIA = Accelerator(
    AcceleratorName.NVIDIA,
    resource="nvidia.com/gpu",
    env={"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},  # less fragmentation of the device's memory
    env_together=lambda _: {"NCCL_DEBUG": "WARN"},  # the cause of an error in the log
    env_without_devices={"NVIDIA_VISIBLE_DEVICES": "void"},
)
