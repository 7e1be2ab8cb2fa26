"""The course of every run, whatever its method and tuner: rows, model, resume, train, check, publish."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from datasets import Dataset
from jinja2 import TemplateSyntaxError
from transformers import PreTrainedTokenizerBase, PrinterCallback, set_seed

from tunesmith_api.batches import total_steps
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec, Rows
from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
from tunesmith_api.training import Training, Weights
from tunesmith_api.training import Tuner as TunerName
from tunesmith_runtime.chat_template import bad_template, read_template
from tunesmith_runtime.data.dropped_rows import FILE as DROPPED_FILE
from tunesmith_runtime.data.encode import Encoder, completion_tokens
from tunesmith_runtime.data.example_file import open_columns
from tunesmith_runtime.data.load import Data, StreamedData, load, load_stream, open_data
from tunesmith_runtime.data.packing import PackedRows
from tunesmith_runtime.disk_space import check_room, extra_bytes
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.config import Limits
from tunesmith_runtime.modelcheck.tokenizer import check_vocabulary
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.tasks import LANGUAGE, task_of
from tunesmith_runtime.train.arguments import rows_per_device, training_arguments
from tunesmith_runtime.train.best import WatchValidation, has_ended, kept_step, load_best
from tunesmith_runtime.train.checkpoint import Checkpoints, download_latest, is_evaluated, read_elapsed
from tunesmith_runtime.train.device import find_device, memory_failures
from tunesmith_runtime.train.explosion import WatchLoss
from tunesmith_runtime.train.head import set_padding
from tunesmith_runtime.train.methods import METHODS, Method, Setup
from tunesmith_runtime.train.model import (
    BASE,
    hash_of_template,
    limits,
    load_tokenizer,
    save_trained,
    stop_ids,
    stored_dtype,
)
from tunesmith_runtime.train.optimizers.own import CREATORS
from tunesmith_runtime.train.process_group import ALONE, ProcessGroup
from tunesmith_runtime.train.reporting import MetricsLog, ProgressReporter, metrics, peak_memory
from tunesmith_runtime.train.rows import TrainingRows, count_of
from tunesmith_runtime.train.samples import answers_of
from tunesmith_runtime.train.streaming import StreamedRows, arrangement
from tunesmith_runtime.train.trainable import load_trainable
from tunesmith_runtime.train.trainer import RunMixin
from tunesmith_runtime.train.training_result import TrainingResult, write_result
from tunesmith_runtime.train.tuners import TUNERS, Tuner
from tunesmith_runtime.train.weight_change import check_learned
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)


def train(
    spec: RunSpec, work: Work, run: RunDirectory, progress: ProgressPusher, group: ProcessGroup = ALONE
) -> RunReport:
    """Train and publish the artifact; or, after SIGTERM, save a checkpoint and report Preempted.

    All processes of `group` compute; the leader writes and reports.

    Raises RunFailure: BadRow, EmptyDataset, ChatTemplateMissing, BadModel, ModelNotFound, BadSpec, DiskFull,
    DeviceOutOfMemory, Diverged, NothingLearned.
    """
    job = spec.fine_tune_job()
    method, tuner = METHODS[job.method], TUNERS[job.tuner]
    rows_per_device(job, group.size)

    # Rows first: a mistake in them shows before weights are read.
    with uploading_dropped_rows(work, run, group):
        tokenizer, data, rows = load_rows(spec, job, method, work, group)

    device = find_device(job.resources.accelerator)
    bf16 = device.computes_in_bf16(job.training.precision)
    steps = total_steps(job.training, count_of(rows))
    tuner.check_steps(job, steps)
    head = method.head(job, open_columns(data.train_file)) if isinstance(data, Data) else {}
    compute = torch.bfloat16 if bf16 else torch.float32
    model = load_trainable(spec, job, tuner, work, compute, device.name, tokenizer, head)
    if group.is_leader:
        check_disk(model, job, work)
    has_changed = tuner.record_weights(model, stored_dtype(work.model()))

    # The state of an earlier attempt, if there is one.
    state = run.local / "resume"
    resumed = download_latest(run, state, group)
    resumed_from_step = resumed.step if resumed else None
    elapsed = read_elapsed(state) if resumed else 0.0
    checkpoints = Checkpoints(run, job.checkpoint, resumed, elapsed, group, kept_step(job))
    metrics_log = MetricsLog(run)
    reporter = ProgressReporter(progress, checkpoints, lambda: data.rows, resumed_from_step)
    answers = answers_of(job, run, tokenizer, stop_ids(work.model(), tokenizer))
    of_leader = [reporter, metrics_log, *([answers] if answers else ())]

    held_out = None if data.validation is None else method.arrange(data.validation, job)
    trainer = method.build_trainer(
        Setup(
            job=job,
            work=work,
            model=model,
            tokenizer=tokenizer,
            train_dataset=rows,
            eval_dataset=held_out,
            arguments=training_arguments(
                job, count_of(rows), data.validation is not None, run.local / "checkpoints", group, device.name, bf16
            ),
            callbacks=[
                *tuner.callbacks(model, job, steps, state if resumed else None),
                checkpoints,
                WatchLoss(),
                WatchValidation(job),
                *(of_leader if group.is_leader else ()),
            ],
            group=group,
        )
    )
    trainer.validation_sets = data.validation_sets
    trainer.own_optimizer = CREATORS.get(job.training.optimizer)
    trainer.remove_callback(PrinterCallback)
    if group.rank:  # equal weights, but another dropout on each device
        set_seed(job.training.seed + group.rank)

    with checkpoints.on_sigterm():
        with memory_failures("training"):
            trainer.start(state if resumed else None)
            checkpoints.agree()
            if data.validation and not checkpoints.stopping and not is_evaluated(trainer.state):
                trainer.evaluate()
        checkpoints.wait()
        if not has_ended(trainer.state, job) or (data.validation and not is_evaluated(trainer.state)):
            return RunReport(
                verb=Verb.TRAIN, outcome=Outcome.PREEMPTED, run_uri=run.uri,
                last_checkpoint=checkpoints.finish(), resumed_from_step=resumed_from_step,
            )  # fmt: skip

        # From here on SIGTERM changes nothing: the result follows.
        trainer.strategy.make_whole(trainer.model, keep=group.is_leader)
        if job.export.weights is Weights.BEST:
            load_best(trainer, run, run.local / "best", group)
        group.check_in_leader(lambda: check_learned(model, has_changed, trainer.state.global_step))
        if not group.is_leader:
            group.wait_for_leader()
            return RunReport(verb=Verb.TRAIN, outcome=Outcome.SUCCEEDED, run_uri=run.uri)
        if answers:
            answers.answer(model, trainer.args, trainer.state.global_step)
        result = publish(spec, work, run, tuner, trainer, tokenizer, data.rows, checkpoints.elapsed, resumed_from_step)
        metrics_log.upload(trainer.state)
        report = write_result(run, result).report(run.uri)
        group.wait_for_leader()
        return report


def load_rows(
    spec: RunSpec, job: FineTuneJobSpec, method: Method, work: Work, group: ProcessGroup
) -> tuple[PreTrainedTokenizerBase, Data | StreamedData, TrainingRows]:
    """Load the tokenizer, and encode all rows within the limits of the model, once per pod; or open them as a stream."""
    tokenizer = load_tokenizer(work.model(), spec.base.trust_remote_code)
    set_template(tokenizer, spec)
    most = limits(work.model(), spec.base.trust_remote_code)
    if most.vocabulary is not None:
        check_vocabulary(BASE, tokenizer, most.vocabulary)
    ends = stop_ids(work.model(), tokenizer)
    if task_of(job.method) is not LANGUAGE:
        set_padding(tokenizer, ends)
    encoder = Encoder.of(tokenizer, ends, job.training, most, job.method, completion_tokens(job))
    if job.training.streaming:
        arrange = arrangement(job.training, encoder.max_length)
        with naming_positions(most, job), group.pod_leader_first():
            stream = load_stream(work, job, encoder, method.learnable(job), arrange, group.is_pod_leader)
        return tokenizer, stream, StreamedRows(stream.stream)
    with naming_positions(most, job), group.pod_leader_first():
        data = load(work, job, encoder, method.learnable(job)) if group.is_pod_leader else open_data(work)
    method.check_rows(open_columns(data.train_file))
    log.info("rows: %s", data.rows.to_dict())
    return tokenizer, data, arranged(data.train, encoder.max_length, job, method)


def set_template(tokenizer: PreTrainedTokenizerBase, spec: RunSpec) -> None:
    """Set the chat template that the spec gives; it is saved with the tokenizer. Raises RunFailure (BadSpec) for a syntax error."""
    if (template := read_template(spec)) is None:
        return
    tokenizer.chat_template = template
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise bad_template(spec, f"has an error in line {error.lineno}: {error.message}") from error
    except Exception as error:  # noqa: BLE001  # templates raise errors of any type; rows that one refuses are named
        log.info("the chat template does not render a plain question: %s", error)


def arranged(examples: Dataset, capacity: int, job: FineTuneJobSpec, method: Method) -> TrainingRows:
    """Arrange the training examples as the method and `job` need them."""
    return packed(examples, capacity, job.training) if job.training.packing else method.arrange(examples, job)


def packed(examples: Dataset, capacity: int, training: Training) -> PackedRows:
    """Combine the training rows into sequences of at most `capacity` tokens. Those of validation stay apart."""
    rows = PackedRows.of(examples, capacity, training.seed)
    full = sum(rows.lengths) / (len(rows) * capacity)
    log.info(
        "packing: %d rows in %d sequences of %d tokens, %.1f%% full", len(examples), len(rows), capacity, 100 * full
    )
    return rows


@contextmanager
def uploading_dropped_rows(work: Work, run: RunDirectory, group: ProcessGroup) -> Iterator[None]:
    """After the block, also where it fails, upload the first dropped rows of each reason to the run's folder."""
    try:
        yield
    except RunFailure:
        with suppress(RunFailure):  # the failure of the block is the cause
            _upload_dropped_rows(work, run, group)
        raise
    _upload_dropped_rows(work, run, group)


def _upload_dropped_rows(work: Work, run: RunDirectory, group: ProcessGroup) -> None:
    path = work.examples / DROPPED_FILE
    if group.is_leader and path.is_file():
        run.upload_file(path, DROPPED_FILE)


def publish(
    spec: RunSpec,
    work: Work,
    run: RunDirectory,
    tuner: Tuner,
    trainer: RunMixin,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    elapsed_seconds: float,
    resumed_from_step: int | None,
) -> TrainingResult:
    """Save the trained weights, publish them as the tuner's artifact, and return the result of the training."""
    base_uri = work.fetched().model_uri or spec.base.uri
    trained = trainer.accelerator.unwrap_model(trainer.model)
    task = task_of(spec.fine_tune_job().method)
    artifact = task.artifact(tuner.artifact)
    folder = save_trained(trained, tokenizer, run.local / artifact, work.model(), base_uri, task)
    return TrainingResult(
        artifact=run.publish(artifact, folder),
        rows=rows,
        metrics=metrics(trainer.state, elapsed_seconds, peak_memory(trainer.args.device)),
        seeds={"training": spec.fine_tune_job().training.seed},
        template_hash=hash_of_template(tokenizer),
        resumed_from_step=resumed_from_step,
    )


@contextmanager
def naming_positions(most: Limits, job: FineTuneJobSpec) -> Iterator[None]:
    """Within the block, name the positions that the model has for a row, in the log and in EmptyDataset, if they are fewer than
    training.maxLength."""
    length, reserved = job.training.max_length, completion_tokens(job)
    if most.positions is None or most.positions - reserved >= length:
        yield
        return
    left = f", {reserved} of them for completions" if reserved else ""
    text = (
        f"training.maxLength is {length} and the model has {most.positions} positions{left}, "
        f"so a row holds at most {most.positions - reserved} tokens"
    )
    log.warning("%s", text)
    try:
        yield
    except RunFailure as failure:
        if failure.failure is not FailureClass.EMPTY_DATASET:
            raise
        raise RunFailure(failure.failure, f"{failure.message}; {text}", failure.hint) from failure


def check_disk(model: Any, job: FineTuneJobSpec, work: Work) -> None:
    """Check that a checkpoint and the results fit on the disk beside the model and the data. Raises RunFailure (DiskFull)."""
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    number = stored_dtype(work.model()).itemsize
    base = sum(path.stat().st_size for path in work.model().glob("*.safetensors"))
    needed = extra_bytes(base // number, trained, number, job.export.merge and job.tuner is not TunerName.FULL)
    check_room(work.root, job.resources.ephemeral_storage, needed, "a checkpoint or the results of the run")
