"""The verb train: from weights and rows to a trained adapter or model in the run's folder."""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Sequence

from pydantic import Field

from tunesmith_api.base import ApiModel
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import Method
from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.progress_push import Progress
from tunesmith_runtime.rank import PROCESS_VARIABLE
from tunesmith_runtime.rundirectory import RunDirectory, open_run
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.train.imports import hidden, sleep_when_idle
from tunesmith_runtime.train.process_group import ALONE, Peers
from tunesmith_runtime.train.processes import launch
from tunesmith_runtime.train.rendezvous import NothingLeftToDo, alone, join
from tunesmith_runtime.train.training_result import Trained, read_trained
from tunesmith_runtime.workdir import Fetched, Work

log = logging.getLogger(__name__)

METHODS = {Method.SFT: "tunesmith_runtime.train.sft"}
"""The module of each method, with `train(spec, work, run, progress, peers) -> RunReport`. It imports torch; this one does not."""


def run(spec: RunSpec, work: Work, progress: Progress) -> RunReport:
    """Train, alone or as one of the processes of `spec.world`."""
    world = spec.world
    if world and world.processes > 1 and PROCESS_VARIABLE not in os.environ:
        return launch(spec, work, world.processes)
    run_directory = open_run(spec, work, open_storage(spec.store))
    if world is None:
        alone()
        return train(spec, work, run_directory, progress, ALONE)
    sleep_when_idle()
    try:
        accelerator = spec.fine_tune_job().resources.accelerator
        peers = join(world, accelerator, lambda: read_trained(run_directory) is not None)
    except NothingLeftToDo:
        alone()
        peers = ALONE
    with peers.until_all_have_read():
        return train(spec, work, run_directory, progress, peers)


def train(spec: RunSpec, work: Work, run_directory: RunDirectory, progress: Progress, peers: Peers) -> RunReport:
    """Train, unless that is done already: then nothing more is imported and the report is that of the earlier attempt."""
    if same_run(work, work.fetched(), run_directory, peers).adopted:
        return RunReport(verb=Verb.TRAIN, outcome=Outcome.ADOPTED, run_uri=run_directory.uri)
    if trained := _trained_before(run_directory, peers):
        log.info("an earlier attempt has trained already: %s", trained.artifact.uri)
        return trained.report(run_directory.uri)
    sleep_when_idle()
    with hidden():
        method = importlib.import_module(METHODS[spec.fine_tune_job().method])
        report: RunReport = method.train(spec, work, run_directory, progress, peers)
    return report


class Found(ApiModel):
    """What fetch has found in a pod."""

    run_uri: str | None = Field(None, description="The run's folder.")
    adopted: bool = Field(False, description="Whether the run was finished already.")


def same_run(work: Work, fetched: Fetched, run: RunDirectory, peers: Peers) -> Fetched:
    """What this pod's fetch found, made the same for all: finished for one is finished for all.

    Raises RunFailure (StorageCorrupt) where the URIs held one thing for one pod and another for the next.
    """
    if peers.size == 1:
        return fetched
    mine = Found(run_uri=fetched.run_uri, adopted=fetched.adopted)
    told = [content.decode() for content in peers.collect(json.dumps(mine.to_dict()).encode())]
    found = [Found.model_validate_json(text) for text in peers.share(told)]
    if not is_finished(found) or fetched.adopted:
        return fetched
    record = run.finished()
    assert record is not None, f"another pod has seen {run.uri} finished, and finished is for ever"
    known = {"adopted": True, "record": record.to_dict()}
    adopted = fetched.model_copy(update={**known, "model_uri": record.model_uri, "model_digest": record.model_digest})
    if peers.first_of_pod:
        work.write_fetched(adopted)
    return adopted


def is_finished(found: Sequence[Found]) -> bool:
    """Whether any pod found the run finished. Raises RunFailure (StorageCorrupt) where it is not one run."""
    runs = sorted({one.run_uri or "" for one in found})
    if len(runs) > 1:
        raise RunFailure(
            FailureClass.STORAGE_CORRUPT,
            f"the pods of this run found different data or models at the same URIs, which makes several runs: {', '.join(runs)}",
            "do not change data while pods fetch it; the next attempt takes what is there then",
        )
    return any(one.adopted for one in found)


def _trained_before(run: RunDirectory, peers: Peers) -> Trained | None:
    """What an earlier attempt has trained, as the leader sees it."""
    trained = read_trained(run) if peers.leads else None
    told = peers.share(trained and trained.to_dict())
    return None if told is None else Trained.model_validate(told)
