"""How the rows of a run are divided among steps, devices and forward passes. Operator, runtime and estimate share it."""

from __future__ import annotations

import math

from tunesmith_api.refusal import Refusal
from tunesmith_api.training import Training


def batch_refusal(global_batch_size: int, devices: int, micro_batch_size: int | None = None) -> Refusal | None:
    """Return why `devices`, with `micro_batch_size` rows each, can't share a batch of that size; None if they can."""
    batch = f"training.globalBatchSize {global_batch_size}"
    if global_batch_size % devices:
        below = global_batch_size // devices * devices
        sizes = f"{below} or {below + devices}" if below else str(devices)
        return Refusal(
            f"{batch} is not a multiple of the {devices} devices (parallelism.nodes x resources.count)",
            f"set spec.training.globalBatchSize to {sizes}",
        )
    if micro_batch_size and global_batch_size // devices % micro_batch_size:
        on = f" on each of {devices} devices" if devices > 1 else ""
        return Refusal(
            f"{batch} is not a multiple of training.microBatchSize {micro_batch_size}{on}",
            "set spec.training.microBatchSize to a divisor of spec.training.globalBatchSize / devices, or remove it",
        )
    return None


def micro_batch(global_batch_size: int, requested: int | None, devices: int = 1, maximum: int = 8) -> int:
    """Return the rows per device and forward pass: `requested`, or the largest divisor of a device's share of the batch
    up to `maximum`.

    Raises ValueError if `devices` or `requested` do not divide the batch.
    """
    if refusal := batch_refusal(global_batch_size, devices, requested):
        raise ValueError(refusal.message)
    share = global_batch_size // devices
    return requested or max(size for size in range(1, min(maximum, share) + 1) if share % size == 0)


def total_steps(training: Training, rows: int) -> int:
    """Return the number of optimizer steps: those of the epochs or maxSteps, whichever is less; of one epoch without both."""
    if training.max_steps and training.epochs is None:
        return training.max_steps
    needed = math.ceil((training.epochs or 1) * math.ceil(rows / training.global_batch_size))
    return min(needed, training.max_steps or needed)


def batch_rule(in_bounds: str, nodes: str, devices_per_pod: str) -> str:
    """Return the CEL expression by which the API server checks the same for the devices.

    `in_bounds`: a CEL condition under which the numbers are within the schema's bounds. CEL rules run beside the schema, and
    arithmetic on a number out of bounds fails.
    """
    size = "self.training.globalBatchSize"
    return f"!({in_bounds}) || {size} < 1 || {size} % ({nodes} * {devices_per_pod}) == 0"
