"""How the rows of a run are divided among steps, devices and forward passes. Operator, runtime and estimate share it."""

from __future__ import annotations

import math

from tunesmith_api.refusal import Refusal
from tunesmith_api.training import Method, Training

LARGEST_MICRO_BATCH = 8
"""Default of training.microBatchSize, where it divides the rows of a device."""
SAMPLED_ROWS = 32
"""Completions that a device samples at a time, while a method samples them."""
ONE_DEVICE = frozenset({Method.GKD, Method.PPO})
"""Methods that train on one device."""


def batch_refusal(
    global_batch_size: int,
    devices: int,
    micro_batch_size: int | None = None,
    method: Method = Method.SFT,
    group: int = 1,
) -> Refusal | None:
    """Return why `devices`, with `micro_batch_size` rows each, can't share a batch of that size; None if they can.

    `group`: rows that stay on one device, such as the completions of a prompt.
    """
    batch = f"training.globalBatchSize {global_batch_size}"
    if method in ONE_DEVICE and devices > 1:
        return Refusal(
            f"method {method} trains on one device in this version, and parallelism.nodes x resources.count is {devices}",
            "set spec.parallelism.nodes: 1 and spec.resources.count: 1",
        )
    if global_batch_size % devices:
        below = global_batch_size // devices * devices
        sizes = f"{below} or {below + devices}" if below else str(devices)
        return Refusal(
            f"{batch} is not a multiple of the {devices} devices (parallelism.nodes x resources.count)",
            f"set spec.training.globalBatchSize to {sizes}",
        )
    if global_batch_size // devices % group:
        share = f" on each of {devices} devices" if devices > 1 else ""
        return Refusal(
            f"{batch} counts completions, and is no multiple of {method}.numGenerations {group}{share}",
            f"set spec.training.globalBatchSize to a multiple of {group * devices}",
        )
    if micro_batch_size and global_batch_size // devices % micro_batch_size:
        on = f" on each of {devices} devices" if devices > 1 else ""
        return Refusal(
            f"{batch} is not a multiple of training.microBatchSize {micro_batch_size}{on}",
            "set spec.training.microBatchSize to a divisor of spec.training.globalBatchSize / devices, or remove it",
        )
    if method is Method.KTO and (micro_batch_size or _divisor(global_batch_size // devices)) == 1:
        size = 2 * devices
        return Refusal(
            f"{batch} on {devices} device{'s' if devices > 1 else ''} gives a forward pass of 1 row, and method kto compares each answer with that to another row",
            f"set spec.training.globalBatchSize to a multiple of {size}, and spec.training.microBatchSize to 2 or more or remove it",
        )
    return None


def micro_batch(
    global_batch_size: int, requested: int | None, devices: int = 1, maximum: int = LARGEST_MICRO_BATCH
) -> int:
    """Return the rows per device and forward pass: `requested`, or the largest divisor of a device's share of the batch
    up to `maximum`.

    Raises ValueError if `devices` or `requested` do not divide the batch.
    """
    if refusal := batch_refusal(global_batch_size, devices, requested):
        raise ValueError(refusal.message)
    return requested or _divisor(global_batch_size // devices, maximum)


def _divisor(rows: int, maximum: int = LARGEST_MICRO_BATCH) -> int:
    """Return the largest divisor of `rows` up to `maximum`."""
    return max(size for size in range(1, min(maximum, rows) + 1) if rows % size == 0)


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


def group_rule(in_bounds: str, method: str, nodes: str, devices_per_pod: str) -> str:
    """Return the CEL expression by which the API server checks that the devices share whole groups of completions.

    `method`: the name of a method and of its block. `in_bounds`: as of `batch_rule`.
    """
    of_group = f"(has(self.{method}) ? self.{method}.numGenerations : 8)"
    size = "self.training.globalBatchSize"
    return (
        f"self.method != '{method}' || !({in_bounds}) || {size} < 1 || {of_group} < 1 || "
        f"{size} % ({of_group} * {nodes} * {devices_per_pod}) == 0"
    )
