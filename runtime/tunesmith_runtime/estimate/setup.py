"""From a FineTuneJob to the setup of its training: number formats, micro batch, devices, as the training chooses them."""

from __future__ import annotations

from pathlib import Path

from tunesmith_api.batches import SAMPLED_ROWS, replicas_of, rows_of_pass, total_steps
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import METHOD_FACTS
from tunesmith_api.pods import Accelerator
from tunesmith_api.training import ModelPart, Precision, Strategy
from tunesmith_api.tuners import AdaLora, BaseQuantization, Lora, Qlora, Tuner
from tunesmith_runtime.estimate.architecture import Architecture, without_output_layer
from tunesmith_runtime.estimate.device_setup import FLOAT32, Numbers, Setup
from tunesmith_runtime.estimate.devices import CPU_BF16, Device, find_device
from tunesmith_runtime.estimate.memory import NF4_BYTES, NF4_DOUBLE_BYTES
from tunesmith_runtime.estimate.workload import Workload
from tunesmith_runtime.train.optimizers import OPTIMIZERS

EMBEDDINGS = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings"})
HEADS = frozenset({"lm_head", "embed_out"})
"""Last names of the modules that have a row for each token."""
CPU_INFO = Path("/proc/cpuinfo")


def cpu_computes_in_bf16(cpu_info: Path = CPU_INFO) -> bool:
    """Return whether the CPU of this machine has instructions for products in bfloat16."""
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return False
    return any({*CPU_BF16} & {*line.split()} for line in lines if line.startswith("flags"))


def device_of(job: FineTuneJobSpec) -> Device | None:
    """Return the accelerator that spec.pod.nodeSelector names; None if it does not name a known kind."""
    found = find_device((job.pod.node_selector or {}).values())
    return found if found and found.accelerator is job.resources.accelerator else None


def computes_in_bf16(job: FineTuneJobSpec, device: Device | None, cpu_has_bf16: bool) -> bool:
    """Return whether the training computes in bfloat16 on its device."""
    if job.training.precision is not Precision.AUTO:
        return job.training.precision is Precision.BF16
    if job.resources.accelerator is Accelerator.CPU:
        return cpu_has_bf16
    return device is None or device.has_bf16


def reference_passes(job: FineTuneJobSpec, rows: int) -> float:
    """Return how often a trained token passes through a reference: once, or with a precomputed one the part that a single pass over all
    rows has of it."""
    facts = METHOD_FACTS[job.method]
    if not facts.has_reference(job):
        return 0.0
    trained = total_steps(job.training, rows) * job.training.global_batch_size
    return rows / max(1, trained) if facts.precomputes_reference(job) else 1.0


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
    """Return the mean bytes of the optimizer's state for a trained weight. If an adapter trains embeddings, all weights
    count as embeddings."""
    optimizer = OPTIMIZERS[job.training.optimizer]
    if optimizer.embedding_state_bytes is None:
        return optimizer.state_bytes
    if job.tuner is not Tuner.FULL:
        return optimizer.embedding_state_bytes if saved_numbers(job, architecture) else optimizer.state_bytes
    tables = architecture.vocabulary * architecture.hidden * (1 if architecture.is_tied else 2)
    share = min(1.0, tables / max(1, architecture.parameters))
    return share * optimizer.embedding_state_bytes + (1 - share) * optimizer.state_bytes


def saved_names(job: FineTuneJobSpec) -> set[str]:
    """Return the last names of the modules of lora.modulesToSave."""
    return {name.rsplit(".", 1)[-1] for name in (job.lora and job.lora.modules_to_save) or ()}


def saved_numbers(job: FineTuneJobSpec, architecture: Architecture) -> int:
    """Return the numbers that are trained beside an adapter: modulesToSave (a norm is one of each layer), trainableTokens, virtual tokens."""
    lora, sizes, names = job.lora or Lora(), architecture, saved_names(job)
    tokens = len(lora.trainable_tokens or ()) + job.virtual_tokens
    tables = bool(names & EMBEDDINGS) + bool(names & HEADS)
    tables = min(tables, 1) if sizes.is_tied else tables
    norms = len(names - EMBEDDINGS - HEADS) * sizes.layers
    return sizes.hidden * (tables * sizes.vocabulary + norms + tokens)


def frozen_numbers(job: FineTuneJobSpec, architecture: Architecture) -> int:
    """Return the number of the decoder's weights that training.freeze excludes. Patterns are not counted, as the names of the weights
    are unknown here."""
    sizes, numbers = architecture, 0
    if ModelPart.LANGUAGE in job.training.frozen_parts:
        return sizes.parameters
    for part in job.training.freeze or ():
        kind, _, place = part.partition(":")
        first, _, last = place.partition("-")
        if kind == "layers" and first.isdigit():
            numbers += (int(last or first) - int(first) + 1) * sizes.largest_layer
        elif kind == "embeddings" or (kind == "head" and not sizes.is_tied):
            numbers += sizes.vocabulary * sizes.hidden
    return max(0, min(numbers, sizes.parameters))


def numbers_of(job: FineTuneJobSpec, architecture: Architecture, bf16: bool) -> Numbers:
    """Return the number formats of a training that computes in bfloat16 (`bf16`) or in float32."""
    compute, is_full, quantized = 2 if bf16 else FLOAT32, job.tuner is Tuner.FULL, quantized_bytes(job)
    is_float32 = is_full or quantized or (job.lora or Lora()).init.changes_base
    return Numbers(
        base=FLOAT32 if is_float32 else compute,
        compute=compute,
        quantized=quantized,
        optimizer=optimizer_bytes(job, architecture),
        cast=compute if is_full and bf16 else 0,
    )


def rank_of(job: FineTuneJobSpec) -> int:
    """Return the rank of the adapter on each layer at the start."""
    rank = (job.lora or Lora()).rank
    return (job.adalora or AdaLora()).initial_rank_for(rank) if job.tuner is Tuner.ADALORA else rank


def setup_of(
    job: FineTuneJobSpec,
    architecture: Architecture,
    workload: Workload,
    device: Device | None = None,
    cpu_has_bf16: bool = True,
    teacher: Architecture | None = None,
    reward_model: Architecture | None = None,
) -> Setup:
    """Return the setup of a job. Raises ValueError if its devices or micro batch do not divide its batch."""
    training, parallelism, lora = job.training, job.parallelism, job.lora or Lora()
    devices, stages = parallelism.nodes * job.resources.processes, parallelism.pipeline_parallel
    replicas = replicas_of(devices, parallelism.sharing[1])
    share, rows = training.global_batch_size // replicas, rows_of_pass(job)
    facts, is_full = METHOD_FACTS[job.method], job.tuner is Tuner.FULL
    numbers = numbers_of(job, architecture, computes_in_bf16(job, device, cpu_has_bf16))
    stored = architecture.stored_bytes / max(1, architecture.all_parameters)
    return Setup(
        architecture=architecture if facts.writes_text else without_output_layer(architecture),
        tuner=job.tuner,
        batch=workload.batch(rows).behind(job.virtual_tokens),
        numbers=numbers,
        accelerator=str(job.resources.accelerator),
        rank=rank_of(job),
        dropout=lora.dropout,
        targets=lora.target_modules,
        checkpointing=training.gradient_checkpointing,
        micro_batches=share // rows,
        strategy=Strategy.DDP if parallelism.strategy is Strategy.AUTO else parallelism.strategy,
        devices=devices,
        tensor_parallel=parallelism.tensor_parallel,
        pipeline_parallel=stages,
        context_parallel=parallelism.context_parallel,
        offload=parallelism.offload,
        has_reference=facts.has_reference(job) and not facts.precomputes_reference(job),
        reference_passes=reference_passes(job, workload.rows),
        teacher=teacher,
        reward_model=reward_model,
        sampled_rows=sampled_rows(job, replicas),
        has_value_head=job.actor_critic is not None,
        chunks_logits=facts.is_cross_entropy and stages == parallelism.context_parallel == 1,
        has_logits=facts.writes_text,
        saved=0 if is_full else saved_numbers(job, architecture),
        learned=frozenset(ModelPart) - training.frozen_parts,
        frozen=frozen_numbers(job, architecture) if is_full else 0,
        saves_head=bool(saved_names(job) & (HEADS | EMBEDDINGS)),
        converts=bool(numbers.quantized) or abs(stored - numbers.base) > 0.1,
    )
