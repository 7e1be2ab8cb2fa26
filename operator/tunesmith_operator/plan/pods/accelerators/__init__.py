"""Accelerators: one module for each vendor, which defines one `Accelerator`.

No accelerator mounts a path of the host: the restricted Pod Security profile forbids it, and the vendors' device plugins
and container runtimes bring devices and drivers into the container.
"""

from __future__ import annotations

from tunesmith_api.pods import Accelerator as AcceleratorName
from tunesmith_operator.plan.pods.accelerators.amd import AMD
from tunesmith_operator.plan.pods.accelerators.ascend import ASCEND
from tunesmith_operator.plan.pods.accelerators.base import Accelerator
from tunesmith_operator.plan.pods.accelerators.cpu import CPU
from tunesmith_operator.plan.pods.accelerators.nvidia import NVIDIA

ACCELERATORS: dict[AcceleratorName, Accelerator] = {
    accelerator.name: accelerator for accelerator in (CPU, NVIDIA, ASCEND, AMD)
}
