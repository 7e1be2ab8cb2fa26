"""Huawei Ascend NPUs, by the Ascend device plugin and the Ascend container runtime: whole chips of the 910 family.

Many manifests mount /usr/local/Ascend/driver and npu-smi from the host. Here the Ascend container runtime mounts the
driver into every container for which the device plugin sets ASCEND_VISIBLE_DEVICES. An image that sets it gives a container NPUs without a
request; `void` prevents that. A container numbers its NPUs from 0, so that ASCEND_RT_VISIBLE_DEVICES is not set.

Processes that train together use HCCL, which has timeouts of its own and finds the network interfaces itself: HCCL_SOCKET_IFNAME belongs in
`accelerators.ascend.env` of the chart's values where it takes the wrong one.
"""

from __future__ import annotations

from tunesmith_api.pods import Accelerator as AcceleratorName
from tunesmith_api.run import World
from tunesmith_operator.plan.pods.accelerators.base import Accelerator

HWHIAI_USER = 1000
"""Group HwHiAiUser, which owns /dev/davinci*."""
TIMEOUTS: dict[str, tuple[int, int]] = {"HCCL_CONNECT_TIMEOUT": (120, 7200), "HCCL_EXEC_TIMEOUT": (68, 17340)}
"""Timeouts of connections and of operations, in seconds, with the range that HCCL accepts. Their defaults, 120 and about 1800, end a
training whose leader uploads a large checkpoint."""


def timeouts(world: World) -> dict[str, str]:
    """Return HCCL's timeouts as `together.collectiveSeconds` of the chart's values sets that of torch."""
    return {name: str(round(min(max(low, world.collective_seconds), high))) for name, (low, high) in TIMEOUTS.items()}


ASCEND = Accelerator(
    AcceleratorName.ASCEND,
    resource="huawei.com/Ascend910",
    env={"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True"},  # less fragmentation of the device's memory
    env_together=timeouts,
    env_without_devices={"ASCEND_VISIBLE_DEVICES": "void"},
    groups=(HWHIAI_USER,),
)
