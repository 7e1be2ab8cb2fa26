"""The verb export: check that the weights reload as trained, merge the adapter if `export.merge` is set, and finish the run with run.json."""

from __future__ import annotations

import json
import logging
from itertools import islice

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
from tunesmith_api.status import Artifact, ArtifactType
from tunesmith_api.tuners import Lora, LoraInit
from tunesmith_runtime.data.files import rows_or_errors
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.export.report import publish_report
from tunesmith_runtime.multimodal.processor import packages_of
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rank import in_leading_pod
from tunesmith_runtime.rundirectory import RunDirectory, RunRecord, open_run, record_of
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.tasks import task_of
from tunesmith_runtime.train.imports import hidden, sleep_when_idle
from tunesmith_runtime.train.training_result import RESULT_FILE, TrainedLogits, TrainingResult, read_result
from tunesmith_runtime.train.tuners import TUNERS
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)

ADAPTERS = (ArtifactType.ADAPTER, ArtifactType.TASK_ADAPTER)
PROMPTS = 4
"""Number of rows on which the merged model is compared with base and adapter."""
PROMPT_CHARACTERS = 4096
"""Maximum size of such a row: lines can be long."""


def run(spec: RunSpec, work: Work, progress: ProgressPusher) -> RunReport:
    """Finish the run, unless another pod has finished it. Of pods that train together, only the first exports."""
    fetched = work.fetched()
    if not in_leading_pod(spec.world):
        return RunReport(verb=Verb.EXPORT, outcome=Outcome.SUCCEEDED, run_uri=fetched.run_uri)
    if fetched.adopted:
        return RunRecord.model_validate(fetched.record).report(Verb.EXPORT, Outcome.ADOPTED, fetched.run_uri)
    run_directory = open_run(spec, work, open_storage(spec.store))
    result = read_result(run_directory)
    if result is None:
        raise RunFailure(
            FailureClass.PROCESS_ERROR, f"{run_directory.uri}/{RESULT_FILE} is missing: the verb train has not finished"
        )
    artifacts = [result.artifact]
    if spec.fine_tune_job().export.merge and result.artifact.name in ADAPTERS:
        artifacts.append(_merged(spec, work, run_directory, result))
    elif result.logits:
        _check_reloaded(spec, work, run_directory, result, result.logits)
    record = run_directory.finish(
        record_of(
            spec, fetched, seeds=result.seeds, kernels=result.kernels, template_hash=result.template_hash,
            trained_parameters=result.trained_parameters,
            rows=result.rows, metrics=result.metrics, artifacts=artifacts,
            report_uri=publish_report(spec, work, run_directory, result, artifacts),
        )
    )  # fmt: skip
    log.info("finished %s", run_directory.uri)
    return record.report(Verb.EXPORT, Outcome.SUCCEEDED, run_directory.uri)


def _merged(spec: RunSpec, work: Work, run_directory: RunDirectory, result: TrainingResult) -> Artifact:
    """Merge the adapter, check the merged model and publish it."""
    task = task_of(spec.fine_tune_job().method)
    adapter, merged = work.run / result.artifact.name, task.artifact(ArtifactType.MERGED)
    run_directory.fetch(result.artifact, adapter)  # files from the verb train are verified, not downloaded
    sleep_when_idle()
    job = spec.fine_tune_job()
    tuner = TUNERS[job.tuner]
    with hidden(tuner.needs | packages_of(work.model())):
        import torch

        from tunesmith_runtime.export.merge import merge
        from tunesmith_runtime.export.reload import check_for
        from tunesmith_runtime.train.tuners.start import as_trained

        folder = merge(
            work.model(),
            adapter,
            work.run / merged,
            _prompts(work),
            spec.base.trust_remote_code,
            tuner.load_options(job, torch.float32, "cpu") if tuner.quantizes_base else None,
            task,
            as_trained(adapter, work.run / "trained") if begins_with_error(job) else None,
            check_for(result.logits, tuner, work.model()),
        )
    return run_directory.publish(merged, folder)


def _check_reloaded(
    spec: RunSpec, work: Work, run_directory: RunDirectory, result: TrainingResult, trained: TrainedLogits
) -> None:
    """Load what was published, without a merge, and compare it with the trained model."""
    folder = work.run / result.artifact.name
    run_directory.fetch(result.artifact, folder)  # files from the verb train are verified, not downloaded
    sleep_when_idle()
    job = spec.fine_tune_job()
    with hidden(TUNERS[job.tuner].needs):
        from tunesmith_runtime.export.reload import check_artifact
        from tunesmith_runtime.train.tuners.start import as_trained

        if begins_with_error(job):
            folder = as_trained(folder, work.run / "trained")
        check_artifact(job, trained, work.model(), folder, spec.base.trust_remote_code)


def begins_with_error(job: FineTuneJobSpec) -> bool:
    """Return whether the adapter was trained to correct the error of its quantized base (LoftQ), which the published adapter does not contain."""
    return job.initial_adapter is None and (job.lora or Lora()).init is LoraInit.LOFTQ


def _prompts(work: Work) -> list[str]:
    """Return the beginnings of the first rows as JSON: text similar to the learned text."""
    first = work.data_files()[0]
    rows = (row for _, row in rows_or_errors(work.data / first.path, first.uri) if isinstance(row, dict))
    return [json.dumps(row, ensure_ascii=False, default=repr)[:PROMPT_CHARACTERS] for row in islice(rows, PROMPTS)]
