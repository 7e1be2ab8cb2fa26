"""No device: the CPU computes."""

from __future__ import annotations

from tunesmith_operator.plan.pods.accelerators.base import Accelerator

CPU = Accelerator()
