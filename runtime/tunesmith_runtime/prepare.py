"""The verb prepare: all that needs no device, before one is asked for.

Is the run finished already? Is all there that it reads, and can it be written? A hub's model is imported into the store,
so that no device idles meanwhile; what is in the store stays there until fetch brings it.
"""

from __future__ import annotations

from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
from tunesmith_runtime.fetch import find_run
from tunesmith_runtime.fetch.checks import is_lenient
from tunesmith_runtime.fetch.models import find_model
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rundirectory import RunRecord
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.workdir import Work


def run(spec: RunSpec, work: Work, progress: ProgressPusher) -> RunReport:
    """Adopted, with what the finished run holds; or Succeeded, and the work can begin.

    Raises RunFailure as fetch does.
    """
    storage = open_storage(spec.store)
    model = find_model(storage, spec.store.uri, spec.subject, work, is_lenient(spec))
    found, _ = find_run(spec, work, storage, model)
    if found.record is not None:
        return RunRecord.model_validate(found.record).report(Verb.PREPARE, Outcome.ADOPTED, found.run_uri)
    return RunReport(
        verb=Verb.PREPARE,
        outcome=Outcome.SUCCEEDED,
        run_uri=found.run_uri,
        model_uri=found.model_uri,
        model_digest=found.model_digest,
    )
