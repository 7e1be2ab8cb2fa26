"""Accelerators: every name of the API has its description."""

from __future__ import annotations

import pytest

from tunesmith_api.pods import Accelerator as AcceleratorName
from tunesmith_api.run import World
from tunesmith_operator.plan.config import PodPolicy
from tunesmith_operator.plan.pods.accelerators import ACCELERATORS


@pytest.mark.parametrize("name", AcceleratorName)
def test_devices_are_requested_by_the_resource_of_the_accelerator(name: AcceleratorName) -> None:
    accelerator = ACCELERATORS[name]
    assert accelerator.amounts(4) == ({accelerator.resource: "4"} if accelerator.resource else {})
    assert (accelerator.resource is None) is (name is AcceleratorName.CPU)


def test_the_default_policy_tolerates_the_taints_of_every_vendor() -> None:
    keys = {accelerator.taint_keys for accelerator in ACCELERATORS.values() if accelerator.resource}
    assert keys == {"nvidia.com/*", "huawei.com/*", "amd.com/*"}
    assert keys == set(PodPolicy().tolerations)


def test_a_mig_profile_is_a_resource_of_the_vendors_domain() -> None:
    assert ACCELERATORS[AcceleratorName.NVIDIA].amounts(1, "mig-3g.40gb") == {"nvidia.com/mig-3g.40gb": "1"}


@pytest.mark.parametrize(
    ("seconds", "connect", "execute"), [(3600.0, "3600", "3600"), (10.0, "120", "68"), (86400.0, "7200", "17340")]
)
def test_the_timeouts_of_hccl_follow_that_of_torch_within_its_bounds(
    seconds: float, connect: str, execute: str
) -> None:
    env = ACCELERATORS[AcceleratorName.ASCEND].env_together(World(nodes=2, collective_seconds=seconds))
    assert env == {"HCCL_CONNECT_TIMEOUT": connect, "HCCL_EXEC_TIMEOUT": execute}
