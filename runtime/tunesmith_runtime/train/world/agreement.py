"""Pods that train together must work on the same run: their results of fetch are compared and made equal."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import Field

from tunesmith_api.base import ApiModel
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.train.world.process_group import ProcessGroup
from tunesmith_runtime.workdir import Fetched, Work


class FetchedRun(ApiModel):
    """The run that fetch identified in a pod."""

    run_uri: str | None = Field(None, description="The run's folder.")
    adopted: bool = Field(False, description="Whether the run was finished already.")


def agree_on_run(work: Work, fetched: Fetched, run: RunDirectory, group: ProcessGroup) -> Fetched:
    """Return `fetched`, as adopted in every process if any pod found the run finished.

    Raises RunFailure (StorageCorrupt) if the URIs held different data in different pods.
    """
    if group.size == 1:
        return fetched
    own = FetchedRun(run_uri=fetched.run_uri, adopted=fetched.adopted)
    gathered = [content.decode() for content in group.gather(json.dumps(own.to_dict()).encode())]
    runs = [FetchedRun.model_validate_json(text) for text in group.broadcast(gathered)]
    if not is_finished(runs) or fetched.adopted:
        return fetched
    record = run.finished()
    assert record is not None, f"another pod found {run.uri} finished, and a finished run stays finished"
    finished = {"adopted": True, "record": record.to_dict()}
    adopted = fetched.model_copy(
        update={**finished, "model_uri": record.model_uri, "model_digest": record.model_digest}
    )
    if group.is_pod_leader:
        work.write_fetched(adopted)
    return adopted


def is_finished(runs: Sequence[FetchedRun]) -> bool:
    """Return whether any pod found the run finished. Raises RunFailure (StorageCorrupt) if the runs differ."""
    uris = sorted({run.run_uri or "" for run in runs})
    if len(uris) > 1:
        raise RunFailure(
            FailureClass.STORAGE_CORRUPT,
            f"the pods of this run found different data or models at the same URIs, which makes several runs: {', '.join(uris)}",
            "do not change data while pods fetch it; the next attempt reads the present data",
        )
    return any(run.adopted for run in runs)
