"""Supervised fine-tuning over TRL: read the rows, load the model, train, publish. Read it from top to bottom."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import LEARNING_RATES, FineTuneJobSpec, LastCheckpoint, Metrics, Training, Tuner
from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.examples import Example
from tunesmith_runtime.data.load import Data, load
from tunesmith_runtime.data.records import Continuation, Conversation, PlainText, Record
from tunesmith_runtime.disk_space import check_room, extra_bytes
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.config import Limits
from tunesmith_runtime.modelcheck.tokenizer import check_vocabulary
from tunesmith_runtime.progress_push import Progress
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.train.batches import blank, micro_batch
from tunesmith_runtime.train.model import (
    BASE,
    limits,
    load_model,
    load_tokenizer,
    save_model,
    stop_ids,
    stored_dtype,
    template_hash,
)
from tunesmith_runtime.train.process_group import ALONE, Peers
from tunesmith_runtime.train.training_result import Trained, write_trained
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)

LEARNS_FROM: frozenset[type[Record]] = frozenset({Conversation, Continuation, PlainText})
"""Types of the records that SFT learns from."""


def train(spec: RunSpec, work: Work, run: RunDirectory, progress: Progress, peers: Peers = ALONE) -> RunReport:
    """Train as `spec` says and publish the artifact; or leave a checkpoint and say Preempted when asked to stop.

    All peers compute; the one that leads writes and tells.

    Raises RunFailure: BadRow, EmptyDataset, ChatTemplateMissing, ModelNotFound, BadSpec, DeviceOutOfMemory, Diverged,
    NothingLearned.
    """
    job = spec.fine_tune_job()
    rows_at_once(job, peers.size)

    # Rows first: what is wrong with them shows before the trainer is imported or weights are read.
    tokenizer = load_tokenizer(work.model(), spec.base.trust_remote_code)
    most = limits(work.model(), spec.base.trust_remote_code)
    if most.vocabulary is not None:
        check_vocabulary(BASE, tokenizer, most.vocabulary)
    encoder = Encoder.of(tokenizer, stop_ids(work.model(), tokenizer), job.training, most)
    with held_to(most, job.training):
        data = load(work, job, encoder, LEARNS_FROM)
    log.info("rows: %s", data.rows.to_dict())

    import torch
    from transformers import PrinterCallback, set_seed

    from tunesmith_runtime.train.checkpoint import Checkpoints, is_evaluated, newest, read_elapsed
    from tunesmith_runtime.train.device import find_device, memory_failures
    from tunesmith_runtime.train.reporting import Curves, Watch
    from tunesmith_runtime.train.targets import skeleton
    from tunesmith_runtime.train.trainer import DryPass, Trainer
    from tunesmith_runtime.train.tuners import TUNERS
    from tunesmith_runtime.train.weight_change import check_labels, check_learned

    check_labels(data.train, data.validation)

    # The model. Its names and shapes show whether it can be tuned as asked, before its weights are read.
    # A base that is only read may be in bfloat16; weights that are trained are in float32.
    tuner, device = TUNERS[job.tuner], find_device(job.resources.accelerator)
    tuner.check(skeleton(work.model(), spec.base.trust_remote_code), job)
    bf16 = device.computes_in_bf16(job.training.precision)
    base = load_model(
        work.model(), torch.bfloat16 if bf16 and tuner.FROZEN_BASE else torch.float32, spec.base.trust_remote_code
    )
    set_seed(job.training.seed)
    model = tuner.apply(base, job)
    if peers.leads:
        check_disk(model, job, work)
    changed = tuner.changes(model, stored_dtype(work.model()))

    # The state of an earlier attempt, if there is one.
    state = run.local / "resume"
    resumed = newest(run, state, peers)
    resumed_from_step = resumed.step if resumed else None
    checkpoints = Checkpoints(run, job.checkpoint, resumed, read_elapsed(state) if resumed else 0.0, peers)
    curves = Curves(run)
    watch = Watch(progress, checkpoints, data.rows, resumed_from_step)

    filling = [blank(tokenizer.pad_token_id)] if peers.size > 1 else []
    trainer = Trainer(
        model=model,
        args=arguments(job, data, device.name, bf16, run.local / "checkpoints", peers.size),
        train_dataset=as_dataset([*data.train, *filling]),
        eval_dataset=as_dataset(data.validation) if data.validation else None,
        processing_class=tokenizer,
        callbacks=[checkpoints, *((watch, curves) if peers.leads else ())],
        peers=peers,
    )
    if peers.rank:  # equal weights, but not the same dropout on each device
        set_seed(job.training.seed + peers.rank)
    trainer.remove_callback(PrinterCallback)
    if resumed is None:
        trainer.add_callback(DryPass(trainer))
    with checkpoints.on_sigterm():
        with memory_failures("training"):
            trainer.resume(state) if resumed else trainer.train()
            checkpoints.agree()
            if data.validation and not checkpoints.stopping and not is_evaluated(trainer.state):
                trainer.evaluate()
            if trainer.state.global_step < trainer.args.max_steps or (
                data.validation and not is_evaluated(trainer.state)
            ):
                return preempted(run, checkpoints.last, resumed_from_step)

        check_learned(model, changed, trainer.state.global_step)

        # The result. Who is asked to stop now finishes it instead.
        if not peers.leads:
            peers.wait_for_leader()
            return RunReport(verb=Verb.TRAIN, outcome=Outcome.SUCCEEDED, run_uri=run.uri)
        artifact = run.publish(tuner.ARTIFACT, save(trainer, run.local / tuner.ARTIFACT, spec, work))
        curves.upload(trainer.state)
        trained = Trained(
            artifact=artifact,
            rows=data.rows,
            metrics=metrics(trainer, checkpoints.elapsed),
            seeds={"training": job.training.seed},
            template_hash=template_hash(tokenizer),
            resumed_from_step=resumed_from_step,
        )
        report = write_trained(run, trained).report(run.uri)
        peers.wait_for_leader()
        return report


def check_disk(model: Any, job: FineTuneJobSpec, work: Work) -> None:
    """Check that a checkpoint and the results fit on the disk, beside the model and the data. Raises RunFailure (DiskFull)."""
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    base = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
    number = stored_dtype(work.model()).itemsize
    needed = extra_bytes(base, trained, number, job.export.merge and job.tuner is not Tuner.FULL)
    check_room(work.root, job.resources.ephemeral_storage, needed, "a checkpoint or the results of the run")


def rows_at_once(job: FineTuneJobSpec, devices: int) -> int:
    """Rows of a forward pass on each device. Raises RunFailure (BadSpec) where they or the devices do not divide the batch."""
    try:
        return micro_batch(job.training.global_batch_size, job.training.micro_batch_size, devices)
    except ValueError as error:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            str(error),
            "set spec.training.microBatchSize to a divisor of spec.training.globalBatchSize / devices, or remove it",
        ) from error


@contextmanager
def held_to(most: Limits, training: Training) -> Iterator[None]:
    """Say that rows are held to the model's positions, where that is less than training.maxLength."""
    if most.positions is None or most.positions >= training.max_length:
        yield
        return
    text = f"training.maxLength is {training.max_length} and the model has {most.positions} positions, so a row holds at most {most.positions} tokens"
    log.warning("%s", text)
    try:
        yield
    except RunFailure as failure:
        if failure.failure is not FailureClass.EMPTY_DATASET:
            raise
        raise RunFailure(failure.failure, f"{failure.message}; {text}", failure.hint) from failure


def arguments(job: FineTuneJobSpec, data: Data, device: str, bf16: bool, folder: Path, devices: int = 1) -> Any:
    """The trainer's arguments (trl.SFTConfig). Checkpoints are asked for by our callback, curves written by another."""
    from trl import SFTConfig

    training, rows = job.training, rows_at_once(job, devices)
    evaluation = "no" if not data.validation else "steps" if training.eval_steps else "epoch"
    return SFTConfig(
        output_dir=str(folder),
        max_steps=steps(job, data),
        per_device_train_batch_size=rows,
        per_device_eval_batch_size=rows,
        gradient_accumulation_steps=training.global_batch_size // devices // rows,
        learning_rate=training.learning_rate or LEARNING_RATES[job.tuner],
        lr_scheduler_type=str(training.scheduler),
        warmup_steps=training.warmup_ratio,  # below 1 it is a share of the steps
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        gradient_checkpointing=training.gradient_checkpointing,
        bf16=bf16,
        use_cpu=device == "cpu",
        seed=training.seed,
        max_length=None,  # rows are cut or dropped already
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=device != "cpu",
        ddp_find_unused_parameters=False,
        logging_steps=training.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        eval_strategy=evaluation,
        eval_steps=training.eval_steps,
        prediction_loss_only=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def steps(job: FineTuneJobSpec, data: Data) -> int:
    """Optimizer steps in all: what the epochs need or maxSteps, of both the smaller, of neither one epoch."""
    training = job.training
    if training.max_steps and training.epochs is None:
        return training.max_steps
    needed = math.ceil((training.epochs or 1) * math.ceil(len(data.train) / training.global_batch_size))
    return min(needed, training.max_steps or needed)


def as_dataset(examples: list[Example]) -> Any:
    """Encoded rows as a datasets.Dataset with the columns input_ids and labels."""
    from datasets import Dataset

    return Dataset.from_dict(
        {"input_ids": [example.input_ids for example in examples], "labels": [example.labels for example in examples]}
    )


def save(trainer: Any, folder: Path, spec: RunSpec, work: Work) -> Path:
    """The trained weights as safetensors, with tokenizer and chat template; returns `folder`."""
    from peft import PeftModel

    shutil.rmtree(folder, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):  # name the base by its URI: this pod's path means nothing elsewhere
        config = model.peft_config["default"]
        config.base_model_name_or_path = work.fetched().model_uri or spec.base.uri
        config.target_modules = sorted(config.target_modules)  # a set is written in an order of its own each time
        model.save_pretrained(folder, save_embedding_layers=False)
    else:  # whoever serves it has the room that the base takes
        save_model(model.to(stored_dtype(work.model())), folder, work.model())
    trainer.processing_class.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # a card with nothing in it; run.json is the record
    return folder


def metrics(trainer: Any, seconds: float) -> Metrics:
    """The figures of the run, from the trainer's log."""
    newest: dict[str, float] = {}
    for entry in trainer.state.log_history:
        newest |= entry
    return Metrics(
        train_loss=newest.get("loss"),
        eval_loss=newest.get("eval_loss"),
        steps=trainer.state.global_step,
        tokens=int(trainer.state.num_input_tokens_seen),
        train_seconds=round(seconds, 3),
    )


def preempted(run: RunDirectory, last: LastCheckpoint | None, resumed_from_step: int | None) -> RunReport:
    """The report of a run that goes on elsewhere."""
    return RunReport(
        verb=Verb.TRAIN, outcome=Outcome.PREEMPTED, run_uri=run.uri, last_checkpoint=last, resumed_from_step=resumed_from_step
    )  # fmt: skip
