"""The verb prepare: everything that needs no device, before devices are requested.

It looks for a finished run to adopt, checks that the inputs exist and that the output is writable, imports a hub's model into
the store, and estimates a FineTuneJob. Weights that are in the store stay there until fetch downloads them.
"""

from __future__ import annotations

from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
from tunesmith_runtime.fetch import find_run
from tunesmith_runtime.fetch.assessment import Assessment, assess
from tunesmith_runtime.fetch.checks import check_vocabularies, is_lenient
from tunesmith_runtime.fetch.initial import check_initial
from tunesmith_runtime.fetch.models import find_further, find_model
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rundirectory import RunRecord
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.workdir import Work


def run(spec: RunSpec, work: Work, progress: ProgressPusher) -> RunReport:
    """Report Adopted with the content of the finished run, or Succeeded if the run can start.

    A job that ends before training adopts nothing. Raises the same failures as fetch, and those of `assess`.
    """
    storage = open_storage(spec.store)
    model = find_model(storage, spec.store.uri, spec.subject, work, is_lenient(spec), spec.hub)
    further = find_further(storage, spec, work)
    found, data = find_run(spec, work, storage, model, further)
    is_tuning = spec.kind == "FineTuneJob"
    if found.record is not None and (not is_tuning or spec.fine_tune_job().until.trains):
        return RunRecord.model_validate(found.record).report(Verb.PREPARE, Outcome.ADOPTED, found.run_uri)
    check_initial(storage, spec, model, further)
    check_vocabularies(storage, model, further)
    has_looked_up = spec.looked_up is not None  # then the status shows what the name stands for, also before the import
    known = assess(spec, work, storage, model, data, further) if is_tuning else Assessment()
    return RunReport(
        verb=Verb.PREPARE,
        outcome=Outcome.SUCCEEDED,
        run_uri=found.run_uri,
        model_uri=found.model_uri or (model.source if has_looked_up else None),
        model_digest=found.model_digest,
        rows=known.rows,
        estimate=known.estimate,
    )
