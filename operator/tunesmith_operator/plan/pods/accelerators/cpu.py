"""No device: the CPU computes."""

from __future__ import annotations

from tunesmith_api.pods import Accelerator as AcceleratorName
from tunesmith_operator.plan.pods.accelerators.base import Accelerator

CPU = Accelerator(AcceleratorName.CPU)
