"""The description of an accelerator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tunesmith_api.pods import Accelerator as AcceleratorName
from tunesmith_api.run import World


@dataclass(frozen=True)
class Accelerator:
    """What a pod needs to compute on a vendor's devices."""

    name: AcceleratorName
    resource: str | None = None
    """Extended resource of one device; None: the CPU computes."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment of the containers that request devices."""
    env_together: Callable[[World], Mapping[str, str]] = lambda _: {}
    """Return what else such a container has in the environment if its processes train together with others."""
    env_installed: Mapping[str, str] = field(default_factory=dict)
    """The same by the installation, which takes precedence."""
    env_without_devices: Mapping[str, str] = field(default_factory=dict)
    """Environment of the other containers of the pod."""
    groups: tuple[int, ...] = ()
    """Supplementary groups that may open the device files."""

    @property
    def taint_keys(self) -> str | None:
        """Pattern of the taint keys by which the vendor's tools reserve nodes: all of the resource's domain."""
        return f"{self.resource.partition('/')[0]}/*" if self.resource else None

    def amounts(self, count: int, profile: str | None = None) -> dict[str, str]:
        """Return requests and limits for `count` devices, or partitions of that profile."""
        if self.resource is None:
            return {}
        resource = f"{self.resource.partition('/')[0]}/{profile}" if profile else self.resource
        return {resource: str(count)}
