"""Compute status.estimate of a FineTuneJob from its spec, the sizes of its model, and its rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tunesmith_api.batches import total_steps
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.finetunejob_status import Estimate, EstimatedMemory
from tunesmith_api.pods import Accelerator
from tunesmith_api.quantities import bytes_of
from tunesmith_api.refusal import Refusal
from tunesmith_api.training import Strategy
from tunesmith_api.tuners import Tuner
from tunesmith_runtime.disk_space import extra_bytes
from tunesmith_runtime.estimate.architecture import Architecture
from tunesmith_runtime.estimate.changes import divided, steps_to_fit
from tunesmith_runtime.estimate.device_setup import Setup
from tunesmith_runtime.estimate.devices import Device, partition_bytes, smallest_that_fits
from tunesmith_runtime.estimate.duration import in_words, seconds
from tunesmith_runtime.estimate.memory import GIB, Memory, collected, host, peak
from tunesmith_runtime.estimate.setup import device_of, setup_of
from tunesmith_runtime.estimate.workload import Workload


@dataclass(frozen=True)
class Inputs:
    """The inputs of an estimate."""

    job: FineTuneJobSpec
    architecture: Architecture
    workload: Workload
    data_bytes: int = 0
    """Size of the files of rows."""
    cpu_has_bf16: bool = True
    """Whether the CPU computes in bfloat16, for accelerator cpu."""
    teacher: Architecture | None = None
    """The model of spec.gkd.teacher."""
    reward_model: Architecture | None = None
    """The model of the reward of type model."""

    @property
    def model_bytes(self) -> int:
        """Size of the files of all models."""
        models = (self.architecture, self.teacher, self.reward_model)
        return sum(model.stored_bytes for model in models if model)

    @property
    def used(self) -> Workload:
        """The training sequences: the rows, or the packed sequences."""
        training = self.job.training
        return self.workload.packed(training.max_length) if training.packing else self.workload


def estimate(inputs: Inputs) -> Estimate:
    """Return the estimate. Raises ValueError if the devices or the micro batch do not divide the batch."""
    named = device_of(inputs.job)
    limit = memory_limit(inputs.job, named)
    job, why = with_strategy(inputs, limit)
    workload = inputs.used
    setup = _setup(inputs, job)
    memory = peak(setup)
    device = named or smallest_that_fits(job.resources.accelerator, limit or memory.total)
    steps = total_steps(job.training, workload.rows)
    tokens = trained_tokens(inputs, steps)
    hours = seconds(setup, tokens, workload.mean_length, steps, device) / 3600 if device else None
    return Estimate(
        summary=summary(memory, limit, setup, device, hours, steps, is_named=named is not None) + why + waiting(setup),
        strategy=job.parallelism.strategy if setup.devices > 1 else None,
        memory_bytes=memory.total,
        host_memory_bytes=pod_memory(job, setup) or None,
        memory=EstimatedMemory(**{name: size for name, size in vars(memory).items() if size}),
        device_memory_bytes=limit,
        parameters=inputs.architecture.parameters,
        trained_parameters=setup.trained,
        download_bytes=inputs.model_bytes + inputs.data_bytes,
        disk_bytes=disk_bytes(inputs, setup),
        rows=workload.rows,
        tokens=tokens,
        steps=steps,
        sampled=None if workload.is_exact else True,
        device=device.name if device else None,
        hours=None if hours is None else round(hours, 3),
        accelerator_hours=None if hours is None else round(hours * setup.devices, 3),
        changes=changes(inputs, limit) if limit and memory.total > limit else None,
    )


def with_strategy(inputs: Inputs, limit: int | None) -> tuple[FineTuneJobSpec, str]:
    """Return the job with the strategy of `auto`, and the reason for the line: ddp if it fits or if devices share layers, otherwise
    fsdp."""
    job, sharing = inputs.job, inputs.job.parallelism.tensor_parallel
    shared = f"; {sharing} devices share each layer" if sharing > 1 else ""
    if job.parallelism.strategy is not Strategy.AUTO:
        return job, shared
    whole = job.model_copy(update={"parallelism": job.parallelism.model_copy(update={"strategy": Strategy.DDP})})
    needed = needed_bytes(inputs, whole)
    sharded = divided(job)
    if limit is None or needed <= limit or sharded is None:
        return whole, shared
    return sharded, f"; strategy fsdp, as ddp needs {needed / GIB:.1f} GiB"


def waiting(setup: Setup) -> str:
    """Return how long the devices of a pipeline wait, for the line."""
    if setup.pipeline_parallel == 1:
        return ""
    return f"; {setup.pipeline_parallel} devices have some layers each, and wait for each other in {setup.idle:.0%} of a step"


def needed_bytes(inputs: Inputs, job: FineTuneJobSpec) -> int:
    """Return the bytes that a device needs for a variant of the job."""
    return peak(_setup(inputs, job)).total


def _setup(inputs: Inputs, job: FineTuneJobSpec) -> Setup:
    """Return the setup of a variant of the job."""
    used = replace(inputs, job=job).used
    return setup_of(
        job, inputs.architecture, used, device_of(job), inputs.cpu_has_bf16, inputs.teacher, inputs.reward_model
    )


def memory_limit(job: FineTuneJobSpec, named: Device | None) -> int | None:
    """Return the bytes of memory that each device of a job has; None if they are unknown."""
    resources = job.resources
    if resources.device_memory:
        return bytes_of(resources.device_memory)
    if resources.accelerator is Accelerator.CPU:
        return bytes_of(resources.memory) if resources.memory else None
    if resources.profile:
        return partition_bytes(resources.profile)
    return named.memory_bytes if named else None


def trained_tokens(inputs: Inputs, steps: int) -> int:
    """Return the tokens of all steps, without padding: exact for whole passes over counted rows."""
    batch, workload = inputs.job.training.global_batch_size, inputs.used
    rows = workload.rows
    per_pass = max(1, -(-rows // batch))
    passes, rest = divmod(steps, per_pass)
    return passes * workload.tokens + round(min(rest * batch, rows) * workload.mean_row)


def pod_memory(job: FineTuneJobSpec, setup: Setup) -> int:
    """Return the bytes that the training takes of the memory of the first pod, beside its devices."""
    return 0 if setup.accelerator == Accelerator.CPU else host(setup) * job.resources.processes + collected(setup)


def disk_bytes(inputs: Inputs, setup: Setup) -> int:
    """Return the disk of a pod: the model, the rows, and a checkpoint or the results."""
    sizes, job = inputs.architecture, inputs.job
    number = max(1, round(sizes.stored_bytes / max(1, sizes.all_parameters)))
    is_full = job.tuner is Tuner.FULL
    frozen = sizes.other_parameters - setup.trained_beside if is_full else sizes.all_parameters
    results = extra_bytes(frozen, setup.trained, number, job.export.merge and not is_full)
    return inputs.model_bytes + inputs.data_bytes + results


def changes(inputs: Inputs, limit: int) -> list[str] | None:
    """Return changes that together make the job fit; None if no known change is enough."""

    def need(job: FineTuneJobSpec) -> float:
        setup = _setup(inputs, with_strategy(replace(inputs, job=job), limit)[0])
        return math.inf if exceeds_pod(job, pod_memory(job, setup)) else peak(setup).total

    steps = steps_to_fit(inputs.job, need, limit)
    is_enough = bool(steps) and steps[-1].bytes_needed <= limit
    return [f"spec.{each.field} (needs {each.bytes_needed / GIB:.1f} GiB)" for each in steps] if is_enough else None


def exceeds_pod(job: FineTuneJobSpec, taken: int) -> bool:
    """Return whether what the devices keep in the memory of a pod is more than resources.memory."""
    return bool(job.resources.memory) and taken > bytes_of(job.resources.memory or "")


def refusal(job: FineTuneJobSpec, found: Estimate) -> Refusal | None:
    """Return why a job will not fit, and the changes that make it fit; None if it fits, or if its devices' memory is
    unknown."""
    taken, memory = found.host_memory_bytes or 0, job.resources.memory
    if exceeds_pod(job, taken):
        return Refusal(
            f"what is offloaded, and what the first pod collects of divided weights and state, takes {taken / GIB:.1f} GiB of the memory of a pod, "
            f"and resources.memory is {memory}",
            f"set spec.resources.memory to more than {math.ceil(taken / GIB)}Gi",
        )
    limit, needed = found.device_memory_bytes, found.memory_bytes
    if not limit or not needed or needed <= limit:
        return None
    parts = found.memory.to_dict() if found.memory else {}
    shown = ", ".join(f"{name} {size / GIB:.1f}" for name, size in sorted(parts.items(), key=lambda each: -each[1]))
    is_cpu = job.resources.accelerator is Accelerator.CPU
    where = "and resources.memory is" if is_cpu else "on each device, which has"
    message = f"the training needs {needed / GIB:.1f} GiB {where} {limit / GIB:.4g} GiB: {shown}"
    if found.changes:
        return Refusal(message, f"set {' and '.join(found.changes)}")
    gib = math.ceil(needed / GIB)
    if is_cpu:
        return Refusal(message, f"set spec.resources.memory: {gib}Gi")
    return Refusal(
        message,
        f"name devices of {gib} GiB or more in spec.pod.nodeSelector, or set spec.resources.deviceMemory: {gib}Gi",
    )


def summary(
    memory: Memory,
    limit: int | None,
    setup: Setup,
    device: Device | None,
    hours: float | None,
    steps: int,
    is_named: bool,
) -> str:
    """Return the estimate in one line, such as `needs 21.4 of 24 GiB on each device; about 3 h 10 min on one L4`."""
    size = f"{memory.total / GIB:.1f}"
    of = f"{size} of {limit / GIB:.4g} GiB" if limit else f"{size} GiB"
    where = "" if setup.accelerator == Accelerator.CPU else " on each device"
    if taken := host(setup):
        where += f" and {taken / GIB:.1f} GiB of the pod's memory for each"
    verdict = "will not fit: " if limit and memory.total > limit else ""
    if device is None or hours is None:
        return f"{verdict}needs {of}{where}; {steps} steps"
    count = "one" if setup.devices == 1 else f"{setup.devices} x"
    which = "" if is_named else ", the smallest known device with that memory"
    return f"{verdict}needs {of}{where}; about {in_words(hours * 3600)} on {count} {device.name}{which}"
