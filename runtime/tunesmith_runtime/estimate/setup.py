"""From a FineTuneJob to the setup of its training: number formats, micro batch, devices, as the training chooses them."""

from __future__ import annotations

from pathlib import Path

from tunesmith_api.batches import SAMPLED_ROWS, micro_batch
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.methods import Dpo, Grpo, Rloo
from tunesmith_api.pods import Accelerator
from tunesmith_api.training import (
    HEAD_METHODS,
    AdaLora,
    BaseQuantization,
    Lora,
    Method,
    Precision,
    Qlora,
    Strategy,
    Tuner,
)
from tunesmith_runtime.estimate.architecture import Architecture, without_output_layer
from tunesmith_runtime.estimate.devices import Device, find_device
from tunesmith_runtime.estimate.memory import FLOAT32, NF4_BYTES, NF4_DOUBLE_BYTES, Numbers, Setup
from tunesmith_runtime.estimate.workload import Workload
from tunesmith_runtime.train.optimizers import OPTIMIZERS

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Flags of CPUs that compute in bfloat16 (train/device.py)."""
CPU_INFO = Path("/proc/cpuinfo")


def cpu_computes_in_bf16(cpu_info: Path = CPU_INFO) -> bool:
    """Return whether the CPU of this machine has instructions for products in bfloat16."""
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return False
    return any(BF16_FLAGS & set(line.split()) for line in lines if line.startswith("flags"))


def device_of(job: FineTuneJobSpec) -> Device | None:
    """Return the accelerator that spec.pod.nodeSelector names; None if it names none of a known kind."""
    found = find_device((job.pod.node_selector or {}).values())
    return found if found and found.accelerator is job.resources.accelerator else None


def computes_in_bf16(job: FineTuneJobSpec, device: Device | None, cpu_has_bf16: bool) -> bool:
    """Return whether the training computes in bfloat16 on its device."""
    if job.training.precision is not Precision.AUTO:
        return job.training.precision is Precision.BF16
    if job.resources.accelerator is Accelerator.CPU:
        return cpu_has_bf16
    return device is None or device.has_bf16


def has_reference(job: FineTuneJobSpec) -> bool:
    """Return whether the training compares its model with the model before the training."""
    if isinstance(job.rollouts, Grpo | Rloo):
        return bool(job.rollouts.beta)
    if job.actor_critic:
        return bool(job.actor_critic.kl_coefficient)
    return job.method is Method.KTO or (job.method is Method.DPO and not (job.dpo or Dpo()).reference_free)


def quantized_bytes(job: FineTuneJobSpec) -> float:
    """Return the bytes of a weight of the base's linear layers if the tuner quantizes them, else 0."""
    if job.tuner is not Tuner.QLORA:
        return 0
    settings = job.qlora or Qlora()
    if settings.quantization is BaseQuantization.INT8:
        return 1
    return NF4_DOUBLE_BYTES if settings.double_quantization else NF4_BYTES


def sampled_rows(job: FineTuneJobSpec, devices: int) -> int:
    """Return the completions that a device samples at a time."""
    steps = job.rollouts.steps_per_rollout if job.rollouts else job.actor_critic.minibatches if job.actor_critic else 0
    return min(SAMPLED_ROWS, steps * job.training.global_batch_size // devices)


def optimizer_bytes(job: FineTuneJobSpec, architecture: Architecture) -> float:
    """Return the bytes of the optimizer's state for each trained weight, on average. Adapters train no embeddings."""
    optimizer = OPTIMIZERS[job.training.optimizer]
    if job.tuner is not Tuner.FULL or optimizer.embedding_state_bytes is None:
        return optimizer.state_bytes
    tables = architecture.vocabulary * architecture.hidden * (1 if architecture.is_tied else 2)
    share = min(1.0, tables / max(1, architecture.parameters))
    return share * optimizer.embedding_state_bytes + (1 - share) * optimizer.state_bytes


def setup_of(
    job: FineTuneJobSpec,
    architecture: Architecture,
    workload: Workload,
    device: Device | None = None,
    cpu_has_bf16: bool = True,
    teacher: Architecture | None = None,
) -> Setup:
    """Return the setup of a job. Raises ValueError if its devices or micro batch do not divide its batch."""
    training, lora = job.training, job.lora or Lora()
    devices = job.parallelism.nodes * job.resources.processes
    rows = micro_batch(training.global_batch_size, training.micro_batch_size, devices)
    bf16 = computes_in_bf16(job, device, cpu_has_bf16)
    number = 2 if bf16 else 4
    is_full = job.tuner is Tuner.FULL
    quantized = quantized_bytes(job)
    loaded = FLOAT32 if is_full or quantized else number
    stored = architecture.stored_bytes / max(1, architecture.parameters)
    has_head = job.method in HEAD_METHODS
    return Setup(
        architecture=without_output_layer(architecture) if has_head else architecture,
        tuner=job.tuner,
        batch=workload.batch(rows),
        numbers=Numbers(
            base=loaded,
            compute=number,
            quantized=quantized,
            optimizer=optimizer_bytes(job, architecture),
            cast=number if is_full and bf16 else 0,
        ),
        accelerator=str(job.resources.accelerator),
        rank=(job.adalora or AdaLora()).begins_with(lora.rank) if job.tuner is Tuner.ADALORA else lora.rank,
        dropout=lora.dropout,
        targets=lora.target_modules,
        checkpointing=training.gradient_checkpointing,
        accumulates=training.global_batch_size // devices > rows,
        strategy=Strategy.DDP if job.parallelism.strategy is Strategy.AUTO else job.parallelism.strategy,
        devices=devices,
        has_reference=has_reference(job),
        teacher=teacher,
        sampled_rows=sampled_rows(job, devices),
        has_value_head=job.actor_critic is not None,
        chunks_logits=job.method in (Method.SFT, Method.PRETRAIN),
        has_head=has_head,
        converts=bool(quantized) or abs(stored - loaded) > 0.1,
    )
