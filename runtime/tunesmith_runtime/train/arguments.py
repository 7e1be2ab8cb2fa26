"""Arguments of transformers.TrainingArguments that all methods share."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunesmith_api.batches import batch_refusal, largest_micro_batch, micro_batch, total_steps
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import compares_rows
from tunesmith_api.training import Kernels, Training, default_learning_rate
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.optimizers import OPTIMIZERS
from tunesmith_runtime.train.schedule import schedule_of
from tunesmith_runtime.train.strategies import strategy_in
from tunesmith_runtime.train.world.process_group import ProcessGroup


def training_arguments(
    job: FineTuneJobSpec,
    count: int,
    is_validated: bool,
    folder: Path,
    group: ProcessGroup,
    device: str,
    bf16: bool,
) -> dict[str, Any]:
    """Return the shared keyword arguments. The Trainer saves and reports nothing itself: callbacks do.

    `count`: rows or sequences of an epoch; a stream has no epochs.
    """
    training, rows = job.training, rows_per_device(job, group)
    compared = micro_batch(training.global_batch_size, training.micro_batch_size, 1, largest_micro_batch(job.method))
    steps, peak = total_steps(training, count), peak_rate(job)
    eval_steps = training.eval_steps or (steps if training.streaming else None)
    evaluation = "no" if not is_validated else "steps" if eval_steps else "epoch"
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": rows,
        "per_device_eval_batch_size": compared if compares_rows(job) else rows,
        "gradient_accumulation_steps": training.global_batch_size // group.replicas // rows,
        "learning_rate": peak,
        "optim": optimizer_argument(training),
        "neftune_noise_alpha": training.neftune_alpha,
        "lr_scheduler_kwargs": asdict(schedule_of(training, peak)),
        "warmup_steps": training.warmup_ratio if training.warmup_steps is None else training.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "gradient_checkpointing": training.gradient_checkpointing,
        "bf16": bf16,
        "use_cpu": device == "cpu",
        "seed": training.seed,
        "dataloader_pin_memory": device != "cpu",
        "accelerator_config": {"dispatch_batches": False},  # each process reads a stream itself
        "ddp_find_unused_parameters": False,
        "logging_steps": training.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "non_padding",
        "eval_strategy": evaluation,
        "eval_steps": eval_steps,
        "prediction_loss_only": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **strategy_in(group).arguments(device, bf16, group.offload),
    }


def optimizer_argument(training: Training) -> str:
    """Return the name of the optimizer in transformers."""
    optimizer = OPTIMIZERS[training.optimizer]
    return (optimizer.plain if training.kernels is Kernels.PLAIN else None) or optimizer.argument


def peak_rate(job: FineTuneJobSpec) -> float:
    """Return the highest learning rate. Raises RunFailure (BadSpec) if training.minLearningRate is above a default."""
    peak = job.training.learning_rate or default_learning_rate(job.method, job.tuner)
    if (job.training.min_learning_rate or 0) > peak:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"training.minLearningRate {job.training.min_learning_rate:g} is above training.learningRate, by default {peak:g}",
            "lower spec.training.minLearningRate, or set spec.training.learningRate",
        )
    return peak


def rows_per_device(job: FineTuneJobSpec, group: ProcessGroup) -> int:
    """Return the rows of a forward pass on each device. Raises RunFailure (BadSpec) if they do not divide the batch."""
    training, together = job.training, job.rollouts.num_generations if job.rollouts else 1
    batch, rows, devices = training.global_batch_size, training.micro_batch_size, group.replicas
    if refusal := batch_refusal(batch, devices, rows, job.method, together, compares=compares_rows(job)):
        raise RunFailure(FailureClass.BAD_SPEC, refusal.message, refusal.hint)
    return micro_batch(batch, rows, devices, largest_micro_batch(job.method, batch // devices, group.pipeline_parallel))
