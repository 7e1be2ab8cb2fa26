"""The verb evaluate: ask the served model the questions of each benchmark, score the answers, store the reports."""

from __future__ import annotations

import logging
import shutil

from tunesmith_api.evaljob import Result
from tunesmith_api.run import Outcome, ProgressReport, RunReport, RunSpec, Verb
from tunesmith_api.status import ArtifactType
from tunesmith_runtime.evaluate import scope
from tunesmith_runtime.evaluate.benchmarks import Task, prepare
from tunesmith_runtime.evaluate.endpoint import find_endpoint
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rundirectory import RunRecord, open_run, record_of
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)


def run(spec: RunSpec, work: Work, progress: ProgressPusher) -> RunReport:
    """Score the model that the container beside this one serves.

    Raises RunFailure: BadRow, EmptyDataset, DatasetNotFound, BadSpec before the first question; EngineFailed;
    EvaluationFailed if a question has no answer.
    """
    fetched = work.fetched()
    if fetched.adopted:
        return RunRecord.model_validate(fetched.record).report(Verb.EVALUATE, Outcome.ADOPTED, fetched.run_uri)
    job = spec.eval_job()
    storage = open_storage(spec.store)
    tasks = [
        prepare(benchmark, job.generation, work, storage.read_bytes, spec.base.trust_remote_code)
        for benchmark in job.benchmarks
    ]
    results = _score_all(spec, tasks, work, progress)
    directory = open_run(spec, work, storage)
    artifact = directory.publish(ArtifactType.REPORT, work.run / ArtifactType.REPORT)
    seeds = {"evaluation": scope.SEED}
    record = directory.finish(record_of(spec, fetched, results=results, artifacts=[artifact], seeds=seeds))
    return record.report(Verb.EVALUATE, Outcome.SUCCEEDED, fetched.run_uri)


def _score_all(spec: RunSpec, tasks: list[Task], work: Work, progress: ProgressPusher) -> list[Result]:
    """Run the benchmarks one after the other; push progress over the questions of all."""
    generation = spec.eval_job().generation
    endpoint = find_endpoint(spec.name)
    shutil.rmtree(work.run / ArtifactType.REPORT, ignore_errors=True)
    hub = spec.hub or scope.DEFAULT_HUB
    scope.quiet_imports(all(task.benchmark.dataset is not None for task in tasks), hub)
    if (tokens := scope.answer_tokens(generation.max_tokens, endpoint.max_length)) < generation.max_tokens:
        log.warning(
            "answers are limited to %d tokens instead of %d: the model holds %d",
            tokens,
            generation.max_tokens,
            endpoint.max_length,
        )
    configs = [
        scope.configuration(task, generation, endpoint, work.run / ArtifactType.REPORT / task.name, hub)
        for task in tasks
    ]
    trust = spec.base.trust_remote_code
    counts = [scope.count_questions(task, config, trust) for task, config in zip(tasks, configs, strict=True)]
    results: list[Result] = []
    total = sum(counts)
    for index, (task, config) in enumerate(zip(tasks, configs, strict=True)):
        before = sum(counts[:index])

        def push(answered: int, task: Task = task, before: int = before) -> None:
            progress.push(ProgressReport(stage=task.name, step=before + answered, total_steps=total))

        push(0)
        task_results = scope.score(task, config, counts[index], push)
        push(counts[index])
        results += task_results
        for result in task_results:
            log.info("%s %s: %.4f over %s questions", result.benchmark, result.metric, result.value, result.samples)
    return results
