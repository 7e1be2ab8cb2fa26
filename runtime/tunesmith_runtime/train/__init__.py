"""The verb train: from weights and rows to a trained adapter or model in the run's folder."""

from __future__ import annotations

import importlib
import logging

from tunesmith_api.finetunejob import Method
from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
from tunesmith_runtime.progress import Progress
from tunesmith_runtime.rundirectory import open_run
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.train.lean import hidden, sleep_when_idle
from tunesmith_runtime.train.trained import read_trained
from tunesmith_runtime.work import Work

log = logging.getLogger(__name__)

METHODS = {Method.SFT: "tunesmith_runtime.train.sft"}
"""The module of each method, with `train(spec, work, run, progress) -> RunReport`. It imports torch; this one does not."""


def run(spec: RunSpec, work: Work, progress: Progress) -> RunReport:
    """Train, unless that is done already: then nothing is imported and the report is that of the earlier attempt."""
    fetched = work.fetched()
    if fetched.adopted:
        return RunReport(verb=Verb.TRAIN, outcome=Outcome.ADOPTED, run_uri=fetched.run_uri)
    run_directory = open_run(spec, work, open_storage(spec.store))
    if trained := read_trained(run_directory):
        log.info("an earlier attempt has trained already: %s", trained.artifact.uri)
        return trained.report(run_directory.uri)
    sleep_when_idle()
    with hidden():
        method = importlib.import_module(METHODS[spec.fine_tune_job().method])
        report: RunReport = method.train(spec, work, run_directory, progress)
    return report
