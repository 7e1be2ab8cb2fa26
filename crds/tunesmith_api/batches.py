"""How the rows of a run are divided among steps, devices and forward passes. Operator, runtime and estimate share it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tunesmith_api.grammar import cel_literal
from tunesmith_api.method_facts import GROUP_METHODS, METHOD_FACTS, Method, MethodFacts, compares_rows
from tunesmith_api.methods import Rollouts
from tunesmith_api.refusal import Refusal
from tunesmith_api.training import Training

if TYPE_CHECKING:
    from tunesmith_api.finetunejob import FineTuneJobSpec

SAMPLED_ROWS = 32
"""Completions that a device samples at a time, while a method samples them."""


def batch_refusal(
    global_batch_size: int,
    devices: int,
    micro_batch_size: int | None = None,
    method: Method = Method.SFT,
    group: int = 1,
    sharing: tuple[str, int] = ("tensorParallel", 1),
    compares: bool = True,
) -> Refusal | None:
    """Return why `devices`, with `micro_batch_size` rows each, can't share a batch of that size; None if they can.

    `group`: rows that stay on one device, such as the completions of a prompt. `sharing`: see `Parallelism.sharing`.
    `compares`: whether a method with a comparison makes it.
    """
    batch = f"training.globalBatchSize {global_batch_size}"
    field, together = f"parallelism.{sharing[0]}", sharing[1]
    if devices % together:
        return Refusal(
            f"{field} {together} does not divide the {devices} devices (parallelism.nodes x resources.count)",
            f"set spec.{field} to a divisor of them, or remove it",
        )
    devices //= together
    if global_batch_size % devices:
        below = global_batch_size // devices * devices
        sizes = f"{below} or {below + devices}" if below else str(devices)
        units = "devices (parallelism.nodes x resources.count)"
        if together > 1:
            units = f"groups of devices (parallelism.nodes x resources.count / {field})"
        return Refusal(
            f"{batch} is not a multiple of the {devices} {units}",
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
    rows = micro_batch_size or _divisor(global_batch_size // devices, largest_micro_batch(method))
    return _comparison_refusal(batch, devices, rows, method) if compares else None


def _comparison_refusal(batch: str, devices: int, rows: int, method: Method) -> Refusal | None:
    """Return why a forward pass of `rows` is too small for the comparisons of a method; None if it is not."""
    comparison = METHOD_FACTS[method].comparison
    if not comparison or rows > 1:
        return None
    return Refusal(
        f"{batch} on {devices} device{'s' if devices > 1 else ''} gives a forward pass of 1 row, and method {method} compares {comparison}",
        f"set spec.training.globalBatchSize to a multiple of {2 * devices}, and spec.training.microBatchSize to 2 or more or remove it",
    )


def job_refusal(spec: FineTuneJobSpec) -> Refusal | None:
    """Return why the devices of a FineTuneJob can't share its batch; None if they can."""
    return batch_refusal(
        spec.training.global_batch_size,
        spec.parallelism.nodes * spec.resources.processes,
        spec.training.micro_batch_size,
        spec.method,
        spec.rollouts.num_generations if spec.rollouts else 1,
        spec.parallelism.sharing,
        compares_rows(spec),
    )


def replicas_of(devices: int, sharing: int) -> int:
    """Return the number of devices, or of groups of `sharing` devices, that take different rows. Raises ValueError for
    a remainder."""
    if devices % sharing:
        raise ValueError(f"{sharing} does not divide the {devices} devices")
    return devices // sharing


def largest_micro_batch(method: Method, rows: int | None = None, stages: int = 1) -> int:
    """Return the largest default of training.microBatchSize for `rows` on a device.

    A pipeline of several `stages` gets at least one micro batch for each stage, if there are enough rows.
    """
    largest = METHOD_FACTS[method].largest_micro_batch
    return largest if rows is None else max(1, min(largest, rows // stages))


def micro_batch(
    global_batch_size: int, requested: int | None, devices: int = 1, maximum: int = MethodFacts.largest_micro_batch
) -> int:
    """Return the rows per device and forward pass: `requested`, or the largest divisor of a device's share of the batch
    up to `maximum`.

    Raises ValueError if `devices` or `requested` do not divide the batch.
    """
    if refusal := batch_refusal(global_batch_size, devices, requested):
        raise ValueError(refusal.message)
    return requested or _divisor(global_batch_size // devices, maximum)


def rows_of_pass(spec: FineTuneJobSpec) -> int:
    """Return the rows of a forward pass of a device of a FineTuneJob. Raises ValueError if its devices or micro batch do not
    divide its batch."""
    training, parallelism = spec.training, spec.parallelism
    replicas = replicas_of(parallelism.nodes * spec.resources.processes, parallelism.sharing[1])
    share = training.global_batch_size // replicas
    largest = largest_micro_batch(spec.method, share, parallelism.pipeline_parallel)
    return micro_batch(training.global_batch_size, training.micro_batch_size, replicas, largest)


def _divisor(rows: int, maximum: int = MethodFacts.largest_micro_batch) -> int:
    """Return the largest divisor of `rows` up to `maximum`."""
    return max(size for size in range(1, min(maximum, rows) + 1) if rows % size == 0)


def total_steps(training: Training, rows: int) -> int:
    """Return the number of optimizer steps: the smaller of maxSteps and the steps of the epochs; without both, the
    steps of one epoch."""
    if training.max_steps and training.epochs is None:
        return training.max_steps
    needed = math.ceil((training.epochs or 1) * math.ceil(rows / training.global_batch_size))
    return min(needed, training.max_steps or needed)


def batch_rule(in_bounds: str, nodes: str, devices_per_pod: str, tensor_parallel: str) -> str:
    """Return the CEL expression with which the API server makes the same check of the devices.

    `in_bounds`: a CEL condition under which the numbers are within the schema's bounds. CEL rules run beside the schema, and
    arithmetic on a number out of bounds fails.
    """
    size = "self.training.globalBatchSize"
    devices = f"{nodes} * {devices_per_pod}"
    return f"!({in_bounds}) || {size} < 1 || {devices} % {tensor_parallel} != 0 || {size} % ({devices} / {tensor_parallel}) == 0"


def sharing_rule(in_bounds: str, nodes: str, devices_per_pod: str, tensor_parallel: str) -> str:
    """Return the CEL expression that checks that groups of devices use all devices. The arguments are those of
    `batch_rule`."""
    return f"!({in_bounds}) || {nodes} * {devices_per_pod} % {tensor_parallel} == 0"


def group_rule(in_bounds: str, nodes: str, devices_per_pod: str, tensor_parallel: str) -> str:
    """Return the CEL expression that checks that each device gets whole groups of completions. The arguments are those of
    `batch_rule`."""
    default = Rollouts.model_fields["num_generations"].default
    set_sizes = "".join(f"has(self.{method}) ? self.{method}.numGenerations : " for method in GROUP_METHODS)
    of_group = f"({set_sizes}{default})"
    size = "self.training.globalBatchSize"
    devices = f"{nodes} * {devices_per_pod}"
    return (
        f"!(self.method in {cel_literal(GROUP_METHODS)}) || !({in_bounds}) || {size} < 1 || {of_group} < 1 || {devices} % {tensor_parallel} != 0 || "
        f"{size} % ({of_group} * ({devices} / {tensor_parallel})) == 0"
    )
