"""The verb export: merge the adapter if that is asked for, and finish the run: run.json last."""

from __future__ import annotations

import logging
from itertools import islice

from tunesmith_api.common import Artifact, ArtifactType
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rank import in_leading_pod
from tunesmith_runtime.rundirectory import RunDirectory, RunRecord, open_run, record_of
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.train.imports import hidden, sleep_when_idle
from tunesmith_runtime.train.training_result import RESULT_FILE, TrainingResult, read_result
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)

PROMPTS = 4
"""Rows of the data that merged and unmerged model are compared on."""
PROMPT_BYTES = 4096
"""Bytes of such a row at most: lines can be long."""


def run(spec: RunSpec, work: Work, progress: ProgressPusher) -> RunReport:
    """Finish the run. A run that another pod has finished meanwhile is reported as that pod left it.

    Of pods that have trained together the first exports, and the others are done.
    """
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
    if spec.fine_tune_job().export.merge and result.artifact.name == ArtifactType.ADAPTER:
        artifacts.append(_merged(spec, work, run_directory, result))
    record = run_directory.finish(
        record_of(
            spec, fetched, seeds=result.seeds, template_hash=result.template_hash,
            rows=result.rows, metrics=result.metrics, artifacts=artifacts,
        )
    )  # fmt: skip
    log.info("finished %s", run_directory.uri)
    return record.report(Verb.EXPORT, Outcome.SUCCEEDED, run_directory.uri)


def _merged(spec: RunSpec, work: Work, run_directory: RunDirectory, result: TrainingResult) -> Artifact:
    """The merged model, checked and published."""
    adapter = work.run / ArtifactType.ADAPTER
    run_directory.fetch(result.artifact, adapter)  # what is there from training already is only verified
    sleep_when_idle()
    with hidden():
        from tunesmith_runtime.export.merge import merge

        folder = merge(
            work.model(), adapter, work.run / ArtifactType.MERGED, _prompts(work), spec.base.trust_remote_code
        )
    return run_directory.publish(ArtifactType.MERGED, folder)


def _prompts(work: Work) -> list[str]:
    """The beginnings of the first rows of the data, as they are in the file: text like that which was learned."""
    with (work.data / work.data_files()[0].path).open("rb") as file:
        lines = list(islice(iter(lambda: file.readline(PROMPT_BYTES), b""), PROMPTS))
    return [text for line in lines if (text := line.decode("utf-8", "replace").strip())]
