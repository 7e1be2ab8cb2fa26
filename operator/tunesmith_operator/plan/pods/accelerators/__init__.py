"""What a device needs of a pod: one module per vendor, each with the same few functions.

- `devices(count)`: extended resources of a container that computes on devices
- `env(computes)`: environment of a container that computes on devices, or does not
- `groups()`: supplementary groups that may open the device files

No module mounts a path of the host: the restricted Pod Security profile forbids it, and the vendors' device plugins
bring devices and drivers into the container by themselves.
"""

from __future__ import annotations

from typing import Protocol

from tunesmith_api.common import Accelerator
from tunesmith_operator.plan.pods.accelerators import ascend, cpu, nvidia


class Vendor(Protocol):
    """The functions of a vendor's module."""

    def devices(self, count: int) -> dict[str, str]: ...
    def env(self, computes: bool) -> dict[str, str]: ...
    def groups(self) -> list[int]: ...


VENDORS: dict[Accelerator, Vendor] = {
    Accelerator.CPU: cpu,
    Accelerator.NVIDIA: nvidia,
    Accelerator.ASCEND: ascend,
}
