"""The course of every run, whatever its method and tuner: rows, model, resume, train, check, publish."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, set_seed

from tunesmith_api.batches import total_steps
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.finetunejob_status import Rows
from tunesmith_api.method_facts import METHOD_FACTS
from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
from tunesmith_api.training import Weights
from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.data.dropped_rows import FILE as DROPPED_FILE
from tunesmith_runtime.data.load import Data
from tunesmith_runtime.disk_space import check_room, extra_bytes
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.tasks import task_of
from tunesmith_runtime.train.arguments import rows_per_device, training_arguments
from tunesmith_runtime.train.best import WatchValidation, has_ended, kept_step, load_best
from tunesmith_runtime.train.checkpoint import Checkpoints, download_latest, is_evaluated, read_elapsed
from tunesmith_runtime.train.device import Device, find_device, memory_failures
from tunesmith_runtime.train.explosion import WatchLoss
from tunesmith_runtime.train.kernels.choice import Choice, choose, compile_layers, settle
from tunesmith_runtime.train.methods import METHODS, Method, Setup
from tunesmith_runtime.train.models.files import hash_of_template, save_trained, stop_ids, stored_dtype
from tunesmith_runtime.train.models.learned_parts import keep_in_graph, rate_factor, trained_numbers
from tunesmith_runtime.train.models.logits import record_logits
from tunesmith_runtime.train.models.trainable import load_trainable
from tunesmith_runtime.train.models.weight_change import check_learned
from tunesmith_runtime.train.optimizers import OPTIMIZERS
from tunesmith_runtime.train.reporting import MetricsLog, ProgressReporter, metrics, peak_memory
from tunesmith_runtime.train.rows.forms import count_of
from tunesmith_runtime.train.rows.loading import LoadedRows, load_rows
from tunesmith_runtime.train.rows.media_batches import loader_arguments
from tunesmith_runtime.train.rows.packing import two_rows
from tunesmith_runtime.train.rows.speech_batches import SpeechCollator
from tunesmith_runtime.train.samples import answers_of
from tunesmith_runtime.train.strategies import strategy_in
from tunesmith_runtime.train.tracking import Track
from tunesmith_runtime.train.trainers.base import RunMixin
from tunesmith_runtime.train.training_result import TrainedLogits, TrainingResult, write_result
from tunesmith_runtime.train.tuners import TUNERS, Tuner
from tunesmith_runtime.train.world.process_group import ALONE, ProcessGroup
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)


def train(
    spec: RunSpec,
    work: Work,
    run: RunDirectory,
    progress: ProgressPusher,
    group: ProcessGroup = ALONE,
    track: Track | None = None,
) -> RunReport:
    """Train and publish the artifact; or, after SIGTERM, save a checkpoint and report Preempted. Afterwards, also after a failure,
    the run's folder has the first dropped rows of each reason.

    All processes of `group` compute; the leader writes and reports, also to the tracker of `track`.

    Raises RunFailure: BadRow, EmptyDataset, ChatTemplateMissing, BadModel, ModelNotFound, BadSpec, DiskFull,
    DeviceOutOfMemory, Diverged, NothingLearned.
    """
    course = Course(spec, work, run, group, track)
    try:
        report = _train(course, progress)
    except RunFailure:
        with suppress(RunFailure):  # the failure of the training is the cause
            upload_dropped_rows(course)
        raise
    if course.job.training.streaming:  # a stream drops rows while it trains
        upload_dropped_rows(course)
    return report


@dataclass(frozen=True)
class Course:
    """A process's task in a training, and the places that it reads and writes."""

    spec: RunSpec
    work: Work
    run: RunDirectory
    group: ProcessGroup
    track: Track | None

    @cached_property
    def job(self) -> FineTuneJobSpec:
        """The job of the run."""
        return self.spec.fine_tune_job()

    @property
    def method(self) -> Method:
        """How the model learns."""
        return METHODS[self.job.method]

    @property
    def tuner(self) -> Tuner:
        """Which weights it learns with."""
        return TUNERS[self.job.tuner]


@dataclass(frozen=True)
class Learner:
    """The model, with the tuner applied, on the device that trains it."""

    model: Any
    device: Device
    bf16: bool
    """Whether it computes in bfloat16."""
    kernels: Choice
    """The fast paths that it may take."""
    fit_to_base: Callable[[Path], None]
    """Makes the saved weights in a folder those for the untouched base."""
    has_changed: Callable[[], bool]
    """Whether a weight differs from its start."""
    trained: Mapping[str, int]
    """Numbers that are trained, by part."""


@dataclass(frozen=True)
class Attempt:
    """Where this attempt begins, and the checkpoints that it writes."""

    checkpoints: Checkpoints
    state: Path | None
    """The folder with the state of an earlier attempt, if there is one."""
    resumed_from_step: int | None


def _train(course: Course, progress: ProgressPusher) -> RunReport:
    job, run, group = course.job, course.run, course.group
    rows_per_device(job, group)

    # Rows first: a mistake in them shows before weights are read.
    rows = load_rows(course.spec, job, course.method, course.work, group)
    upload_dropped_rows(course)
    course.tuner.check_steps(job, total_steps(job.training, count_of(rows.train)))
    learner = load_learner(course, rows)
    attempt = begin(course)

    metrics_log, answers = (
        MetricsLog(run),
        answers_of(job, run, rows.tokenizer, stop_ids(course.work.model(), rows.tokenizer)),
    )
    reporter = progress_reporter(course, progress, attempt, lambda: rows.data.rows)
    of_leader = [reporter, metrics_log, *(each for each in (answers, course.track) if each)]
    trainer = build_trainer(course, rows, learner, attempt, of_leader if group.is_leader else [])

    with attempt.checkpoints.on_sigterm():
        if not run_to_end(trainer, job, attempt, validates=rows.data.validation is not None):
            return RunReport(
                verb=Verb.TRAIN, outcome=Outcome.PREEMPTED, run_uri=run.uri,
                last_checkpoint=attempt.checkpoints.finish(), resumed_from_step=attempt.resumed_from_step,
            )  # fmt: skip
        # From here on SIGTERM changes nothing: the result follows.
        settle_weights(course, trainer, learner)
        if not group.is_leader:
            group.wait_for_leader()
            return RunReport(verb=Verb.TRAIN, outcome=Outcome.SUCCEEDED, run_uri=run.uri)
        if answers:
            answers.answer(learner.model, trainer.args, trainer.state.global_step)
        result = publish(course, trainer, learner, rows, attempt)
        metrics_log.upload(trainer.state)
        report = write_result(run, result).report(run.uri)
        group.wait_for_leader()
        return report


def load_learner(course: Course, rows: LoadedRows) -> Learner:
    """Load the model, and apply the tuner. Raises RunFailure."""
    job, group = course.job, course.group
    device = find_device(job.resources.accelerator)
    bf16 = device.computes_in_bf16(job.training.precision)
    head = course.method.head(job, rows.data.columns()) if isinstance(rows.data, Data) else {}
    strategy = strategy_in(group)
    kernels = choose(job, strategy.is_sharded or strategy.splits_sequences, bf16)
    model = load_trainable(
        course.spec, job, course.tuner, course.work, torch.bfloat16 if bf16 else torch.float32, device.name,
        rows.tokenizer, head, kernels.load_options,
    )  # fmt: skip
    if group.is_leader:
        check_disk(model, job, course.work)
    fit_to_base = course.tuner.record_start(model, job)
    has_changed = course.tuner.record_weights(model, stored_dtype(course.work.model()))
    keep_in_graph(model)
    return Learner(model, device, bf16, kernels, fit_to_base, has_changed, trained_numbers(model))


def begin(course: Course) -> Attempt:
    """Download the newest checkpoint of an earlier attempt, if there is one."""
    state = course.run.local / "resume"
    resumed = download_latest(course.run, state, course.group)
    elapsed = read_elapsed(state) if resumed else 0.0
    checkpoints = Checkpoints(course.run, course.job.checkpoint, resumed, elapsed, course.group, kept_step(course.job))
    return Attempt(checkpoints, state if resumed else None, resumed.step if resumed else None)


def progress_reporter(
    course: Course, progress: ProgressPusher, attempt: Attempt, rows: Callable[[], Rows]
) -> ProgressReporter:
    """Return the callback that reports progress to the operator; `rows` counts those read so far."""
    names = [reward.name for reward in course.job.rewards or ()]
    track = course.track
    return ProgressReporter(
        progress, attempt.checkpoints, rows, attempt.resumed_from_step, names, lambda: track.page if track else None
    )


def build_trainer(
    course: Course, rows: LoadedRows, learner: Learner, attempt: Attempt, callbacks: Sequence[TrainerCallback]
) -> RunMixin:
    """Build the method's trainer on the device, with its fast paths settled and its replica's seed set."""
    job, data, method, tuner = course.job, rows.data, course.method, course.tuner
    number = count_of(rows.train)
    setup = Setup(
        job=job,
        work=course.work,
        model=learner.model,
        tokenizer=rows.tokenizer,
        train_dataset=rows.train,
        eval_dataset=None if data.validation is None else method.arrange(data.validation, job),
        arguments={
            **training_arguments(
                job, number, data.validation is not None, course.run.local / "checkpoints", course.group,
                learner.device.name, learner.bf16,
            ),
            **loader_arguments(rows.train),
        },
        callbacks=[
            *tuner.callbacks(learner.model, job, total_steps(job.training, number), attempt.state),
            attempt.checkpoints,
            *([] if METHOD_FACTS[job.method].samples else [WatchLoss()]),  # such a loss follows the rewards, and may rise
            WatchValidation(job),
            *callbacks,
        ],
        group=course.group,
        media=rows.media,
    )  # fmt: skip
    trainer = method.build_trainer(setup)
    if rows.speech:
        trainer.data_collator = SpeechCollator(trainer.data_collator, rows.speech)
    if attempt.state is None and job.initial_adapter is None:
        with trainer.compute_loss_context_manager(), memory_failures("passing the first rows"):
            tuner.initialize_from_rows(learner.model, job, rows.first())
    trainer.validation_sets = [method.arrange(part, job) for part in data.validation_sets]
    trainer.rate_factor = rate_factor(job, learner.model, tuner.rate_factor(job))
    trainer.own_optimizer = OPTIMIZERS[job.training.optimizer].create
    settle_kernels(trainer, rows, learner)
    trainer.remove_callback(PrinterCallback)
    if course.group.replica:  # equal weights, but another dropout for each replica
        set_seed(job.training.seed + course.group.replica)
    return trainer


def settle_kernels(trainer: RunMixin, rows: LoadedRows, learner: Learner) -> None:
    """Keep the fast paths that work on two rows of the training, and compile the layers where the job asks for it."""
    with trainer.compute_loss_context_manager():
        trainer.kernels = settle(learner.kernels, learner.model, two_rows(rows.train), trainer.args.device)
    if learner.kernels.compiled:
        compile_layers(learner.model)
    log.info("kernels: %s", trainer.kernels.to_dict())


def run_to_end(trainer: RunMixin, job: FineTuneJobSpec, attempt: Attempt, validates: bool) -> bool:
    """Train from where the attempt begins, and wait for its checkpoints; return whether all steps, and the last validation, are done."""
    checkpoints = attempt.checkpoints
    with memory_failures("training"):
        trainer.start(attempt.state)
        checkpoints.agree()
        if validates and not checkpoints.stopping and not is_evaluated(trainer.state):
            trainer.evaluate()
    checkpoints.wait()
    return has_ended(trainer.state, job) and (not validates or is_evaluated(trainer.state))


def settle_weights(course: Course, trainer: RunMixin, learner: Learner) -> None:
    """Gather the weights in the leader, take the best ones if the job asks for them, and check that they have changed."""
    group = course.group
    trainer.strategy.make_whole(trainer.model, keep=group.is_leader)
    if course.job.export.weights is Weights.BEST:
        load_best(trainer, course.run, course.run.local / "best", group)
    group.check_in_leader(lambda: check_learned(learner.model, learner.has_changed, trainer.state.global_step))


def upload_dropped_rows(course: Course) -> None:
    """Upload the first dropped rows of each reason to the run's folder, if there are any."""
    path = course.work.examples / DROPPED_FILE
    if course.group.is_leader and path.is_file():
        course.run.upload_file(path, DROPPED_FILE)


def publish(course: Course, trainer: RunMixin, learner: Learner, rows: LoadedRows, attempt: Attempt) -> TrainingResult:
    """Save the trained weights, fit them to the untouched base, publish them as the tuner's artifact, and return the result of the training."""
    job, work, run = course.job, course.work, course.run
    trained = trainer.accelerator.unwrap_model(trainer.model)
    task = task_of(job.method)
    artifact = task.artifact(course.tuner.artifact)
    base_uri = work.fetched().model_uri or course.spec.base.uri
    logits = trained_logits(trainer, trained, rows, learner.bf16)  # before saving, which may round the weights
    folder = save_trained(trained, rows.tokenizer, run.local / artifact, work.model(), base_uri, task)
    if rows.media:
        rows.media.processor.write_budget(folder)
    course.method.describe(job, trained, folder)
    learner.fit_to_base(folder)
    return TrainingResult(
        artifact=run.publish(artifact, folder),
        rows=rows.data.rows,
        metrics=metrics(trainer.state, attempt.checkpoints.elapsed, peak_memory(trainer.args.device)),
        seeds={"training": job.training.seed},
        kernels=trainer.kernels.to_dict(),
        trained_parameters=dict(learner.trained),
        template_hash=hash_of_template(rows.tokenizer),
        resumed_from_step=attempt.resumed_from_step,
        tracking_url=course.track.page if course.track else None,
        logits=logits,
    )


def trained_logits(trainer: RunMixin, trained: Any, rows: LoadedRows, bf16: bool) -> TrainedLogits | None:
    """Return logits of short rows by the trained model, with which export compares the reloaded one; None where processes have divided it."""
    strategy = trainer.strategy
    if strategy.is_sharded or strategy.splits_sequences or strategy.is_pipelined:
        log.info("the reloaded weights are not compared with the trained model, which is divided among processes")
        return None
    if any(type(module).__name__ == "Linear8bitLt" for module in trained.modules()):
        log.info(
            "the reloaded weights are not compared with the trained model: bitsandbytes computes int8 in training alone"
        )
        return None
    return record_logits(trained, filter(None, rows.first()), bf16)


def check_disk(model: Any, job: FineTuneJobSpec, work: Work) -> None:
    """Check that a checkpoint and the results fit on the disk beside the model and the data. Raises RunFailure (DiskFull)."""
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    number = stored_dtype(work.model()).itemsize
    base = sum(path.stat().st_size for path in work.model().glob("*.safetensors"))
    needed = extra_bytes(base // number, trained, number, job.export.merge and job.tuner is not TunerName.FULL)
    check_room(work.root, job.resources.ephemeral_storage, needed, "a checkpoint or the results of the run")
