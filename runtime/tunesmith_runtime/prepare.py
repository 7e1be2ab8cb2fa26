"""The verb prepare: everything that needs no device, before devices are requested.

It checks that the inputs exist, estimates a FineTuneJob, imports a hub's model into the store, looks for a finished run to adopt,
and checks that the output is writable. Weights that are in the store stay there until fetch downloads them.
"""

from __future__ import annotations

from functools import partial

from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
from tunesmith_runtime.fetch import data_sources, find_run, waiting_for_import
from tunesmith_runtime.fetch.adapter_template import check_template
from tunesmith_runtime.fetch.assessment import Assessment, assess
from tunesmith_runtime.fetch.checks import check_served, check_vocabularies, is_lenient
from tunesmith_runtime.fetch.data import find_data
from tunesmith_runtime.fetch.initial import check_initial
from tunesmith_runtime.fetch.models import Model, disk_limit_of, find_further, find_model
from tunesmith_runtime.fetch.quantized_base import check_quantized
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rundirectory import RunRecord
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.workdir import Work


def run(spec: RunSpec, work: Work, progress: ProgressPusher) -> RunReport:
    """Report Adopted with the content of the finished run, or Succeeded if the run can start.

    A model that must be imported is estimated first, where its files can be read where they are. A job that ends before training
    imports none of these, and adopts nothing. Raises the same failures as fetch, and those of `assess`.
    """
    storage = open_storage(spec.store)
    accept = partial(check_quantized, spec)
    model = find_model(
        storage, spec.store.uri, spec.subject, work, is_lenient(spec), spec.hub, accept, disk_limit_of(spec)
    )
    further = find_further(storage, spec, work)
    data = find_data(storage, data_sources(spec), spec.hub)
    is_tuning = spec.kind == "FineTuneJob"
    trains = not is_tuning or spec.fine_tune_job().until.trains
    waiting = waiting_for_import([model, *further.values()])
    known = assess(spec, work, storage, model, data, further) if is_tuning and waiting else None
    if known is not None and not trains:
        return _report(spec, model, known)
    for each in waiting:
        each.bring_in()
    found = find_run(spec, work, storage, model, further, data)
    if found.record is not None and trains:
        return RunRecord.model_validate(found.record).report(Verb.PREPARE, Outcome.ADOPTED, found.run_uri)
    check_served(storage, spec, model)
    check_initial(storage, spec, model, further)
    check_template(storage, spec, model, further)
    check_vocabularies(storage, model, further)
    if known is None:
        known = assess(spec, work, storage, model, data, further) if is_tuning else Assessment()
    return _report(spec, model, known, found.run_uri)


def _report(spec: RunSpec, model: Model, known: Assessment, run_uri: str | None = None) -> RunReport:
    """The report of a run that can start. For a catalogue name, it has the model's URI, also before the import."""
    return RunReport(
        verb=Verb.PREPARE,
        outcome=Outcome.SUCCEEDED,
        run_uri=run_uri,
        model_uri=model.uri or (model.source if spec.looked_up is not None else None),
        model_digest=model.digest,
        rows=known.rows,
        estimate=known.estimate,
    )
