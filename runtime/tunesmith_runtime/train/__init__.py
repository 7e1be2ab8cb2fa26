"""The verb train: from weights and rows to a trained adapter or model in the run's folder."""

from __future__ import annotations

import logging
import os

from tunesmith_api.pods import Accelerator
from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
from tunesmith_api.training import Strategy
from tunesmith_runtime.multimodal.processor import packages_of
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rank import PROCESS_VARIABLE
from tunesmith_runtime.rundirectory import RunDirectory, open_run
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.train.heap import is_short, return_freed_tensors
from tunesmith_runtime.train.imports import hidden, sleep_when_idle
from tunesmith_runtime.train.methods import METHODS
from tunesmith_runtime.train.optimizers import OPTIMIZERS
from tunesmith_runtime.train.strategies import sharing_in, strategy_in, strategy_of
from tunesmith_runtime.train.training_result import TrainingResult, read_result
from tunesmith_runtime.train.tuners import TUNERS
from tunesmith_runtime.train.world.agreement import agree_on_run
from tunesmith_runtime.train.world.process_group import ALONE, ProcessGroup
from tunesmith_runtime.train.world.processes import launch
from tunesmith_runtime.train.world.rendezvous import AlreadyTrained, clear_environment, join
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)


def run(spec: RunSpec, work: Work, progress: ProgressPusher) -> RunReport:
    """Train in this process, or as a member of the process group of `spec.world`."""
    world = spec.world
    if world and world.processes > 1 and PROCESS_VARIABLE not in os.environ:
        return launch(spec, work, world.processes)
    run_directory = open_run(spec, work, open_storage(spec.store))
    if world is None:
        clear_environment()
        return train(spec, work, run_directory, progress, ALONE)
    sleep_when_idle()
    try:
        accelerator = spec.fine_tune_job().resources.accelerator
        group = join(world, accelerator, lambda: read_result(run_directory) is not None)
    except AlreadyTrained:
        clear_environment()
        group = ALONE
    with group.serving_store():
        return train(spec, work, run_directory, progress, group)


def train(
    spec: RunSpec, work: Work, run_directory: RunDirectory, progress: ProgressPusher, group: ProcessGroup
) -> RunReport:
    """Train, unless the run is finished or trained already: then torch is not imported."""
    if agree_on_run(work, work.fetched(), run_directory, group).adopted:
        return RunReport(verb=Verb.TRAIN, outcome=Outcome.ADOPTED, run_uri=run_directory.uri)
    if result := _earlier_result(run_directory, group):
        log.info("an earlier attempt has trained: %s", result.artifact.uri)
        return result.report(run_directory.uri)
    sleep_when_idle()
    job = spec.fine_tune_job()
    group.strategy = Strategy(group.broadcast(strategy_of(job, group.size, work.fetched().estimate)))
    group.offload = job.parallelism.offload
    group.tensor_parallel, group.pipeline_parallel, group.context_parallel = sharing_in(job, group.size)
    if job.resources.accelerator is Accelerator.CPU and is_short(work.fetched().estimate):
        return_freed_tensors()
    parts = METHODS[job.method], TUNERS[job.tuner], OPTIMIZERS[job.training.optimizer], strategy_in(group)
    needed = {package for part in parts for package in part.needs}
    with hidden(needed | packages_of(work.model())):
        from tunesmith_runtime.train import course
        from tunesmith_runtime.train.tracking import tracked

        with tracked(spec, run_directory, group.is_leader) as track:
            report = course.train(spec, work, run_directory, progress, group, track)
            if track:
                track.outcome = report.outcome
            return report


def _earlier_result(run: RunDirectory, group: ProcessGroup) -> TrainingResult | None:
    """The result of an earlier attempt, as the leader reads it."""
    result = read_result(run) if group.is_leader else None
    content = group.broadcast(result and result.to_dict())
    return None if content is None else TrainingResult.model_validate(content)
