"""Changes of a job that make it fit into the memory of its devices, the cheapest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tunesmith_api.batches import job_refusal, largest_micro_batch, replicas_of
from tunesmith_api.compatibility import refusals
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import compares_rows
from tunesmith_api.pods import MOST_DEVICES, Accelerator
from tunesmith_api.training import Offload, Strategy
from tunesmith_api.tuners import Tuner

Need = Callable[[FineTuneJobSpec], float]
"""Bytes that a job needs on each device; infinite where its pod lacks memory for what the devices offload."""


@dataclass(frozen=True)
class Change:
    """A change of a job: the field below spec with its new value, and the job that has it."""

    field: str
    job: FineTuneJobSpec


@dataclass(frozen=True)
class Step:
    """A change on the way to a job that fits, and the bytes that the job needs with it and those before."""

    field: str
    bytes_needed: float


def steps_to_fit(job: FineTuneJobSpec, need: Need, limit: int) -> list[Step]:
    """Return the changes, to be made together, after which `job` needs least; they end with the first that is enough.

    The last step needs more than `limit` bytes if no known change is enough. A change that makes no difference is left out,
    and so is a change that this version refuses.
    """
    steps: list[Step] = []
    current, needed = job, need(job)
    for proposals in ORDER:
        helpful = [(change, size) for change in proposals(current) if (size := need(change.job)) < needed]
        if not helpful:
            continue
        change, needed = next((each for each in helpful if each[1] <= limit), helpful[-1])
        steps.append(Step(change.field, needed))
        if needed <= limit:
            break
        current = change.job
    return steps


def _micro_batches(job: FineTuneJobSpec) -> Iterator[Change]:
    """Smaller micro batches, which take the same steps: the largest first."""
    share = job.training.global_batch_size // replicas_of(_devices(job), job.parallelism.sharing[1])
    now = job.training.micro_batch_size or largest_micro_batch(job.method, share, job.parallelism.pipeline_parallel)
    least = 2 if compares_rows(job) else 1
    for size in range(min(now - 1, share), least - 1, -1):
        if share % size == 0:
            yield Change(f"training.microBatchSize: {size}", _with_training(job, micro_batch_size=size))


def _checkpointing(job: FineTuneJobSpec) -> Iterator[Change]:
    """Recompute activations: about a third more time."""
    if not job.training.gradient_checkpointing:
        yield Change("training.gradientCheckpointing: true", _with_training(job, gradient_checkpointing=True))


def _packing_off(job: FineTuneJobSpec) -> Iterator[Change]:
    if job.training.packing:
        yield Change("training.packing: false", _with_training(job, packing=False))


def _adapter(job: FineTuneJobSpec) -> Iterator[Change]:
    """An adapter instead of all weights, or a quantized base, where this version has them."""
    order = {Tuner.FULL: (Tuner.LORA, Tuner.QLORA), Tuner.LORA: (Tuner.QLORA,), Tuner.DORA: (Tuner.QLORA,)}
    for tuner in order.get(job.tuner, ()):
        changed = job.model_copy(update={"tuner": tuner})
        if not refusals("FineTuneJob", changed.to_dict()):
            yield Change(f"tuner: {tuner}", changed)


def _offloading(job: FineTuneJobSpec) -> Iterator[Change]:
    """The optimizer, or the weights too, in the memory of the pods: every step copies them. On a CPU that is the same memory."""
    if _devices(job) == 1 or job.resources.accelerator is Accelerator.CPU:
        return
    for strategy, offload in OFFLOADED:
        changed = _with_parallelism(job, strategy=strategy, offload=offload)
        if not refusals("FineTuneJob", changed.to_dict()):
            yield Change(f"parallelism.strategy: {strategy} and spec.parallelism.offload: {offload}", changed)


def _sharding(job: FineTuneJobSpec) -> Iterator[Change]:
    """Weights, gradients and optimizer divided among the devices. `auto` has divided them already where that helps."""
    if job.parallelism.strategy is not Strategy.AUTO and (sharded := divided(job)):
        yield Change(f"parallelism.strategy: {Strategy.FSDP}", sharded)


def _more_devices(job: FineTuneJobSpec) -> Iterator[Change]:
    """Twice, four times, ... as many devices in each pod, as long as the batch divides among them."""
    count = job.resources.devices
    if not count or job.resources.profile:
        return
    while (count := 2 * count) <= MOST_DEVICES:
        changed = job.model_copy(update={"resources": job.resources.model_copy(update={"count": count})})
        if not job_refusal(changed) and not refusals("FineTuneJob", changed.to_dict()):
            yield Change(f"resources.count: {count}", changed)


def divided(job: FineTuneJobSpec) -> FineTuneJobSpec | None:
    """Return `job` with strategy fsdp; None for a single device, or where fsdp does not go with the job."""
    sharded = _with_parallelism(job, strategy=Strategy.FSDP)
    return None if _devices(job) == 1 or refusals("FineTuneJob", sharded.to_dict()) else sharded


OFFLOADED = (
    (Strategy.ZERO1, Offload.OPTIMIZER),
    (Strategy.ZERO2, Offload.OPTIMIZER),
    (Strategy.ZERO3, Offload.ALL),
)
"""Settings of offload, from the one that moves least."""

ORDER: tuple[Callable[[FineTuneJobSpec], Iterator[Change]], ...] = (
    _micro_batches,
    _checkpointing,
    _packing_off,
    _adapter,
    _offloading,
    _sharding,
    _more_devices,
)
"""Kinds of changes, the cheapest first. Each yields changes of which a later one saves more."""


def _with_training(job: FineTuneJobSpec, **fields: object) -> FineTuneJobSpec:
    return job.model_copy(update={"training": job.training.model_copy(update=fields)})


def _with_parallelism(job: FineTuneJobSpec, **fields: object) -> FineTuneJobSpec:
    return job.model_copy(update={"parallelism": job.parallelism.model_copy(update=fields)})


def _devices(job: FineTuneJobSpec) -> int:
    return job.parallelism.nodes * job.resources.processes
