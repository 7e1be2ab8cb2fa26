"""Pods that train together work on the same run: a result of fetch in one pod holds for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.support import Run, make_run
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import INDEX_VARIABLE, Outcome, World
from tunesmith_runtime import export
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rundirectory import record_of
from tunesmith_runtime.train.world.agreement import agree_on_run
from tunesmith_runtime.train.world.process_group import ProcessGroup


class LeaderOfTwo(ProcessGroup):
    """The leader of two processes, with a given result of the other process."""

    def __init__(self, other: dict[str, Any]) -> None:
        super().__init__(rank=0, size=2)
        self._other = json.dumps(other).encode()

    def gather(self, content: bytes) -> list[bytes]:
        return [content, self._other]

    def broadcast(self, value: Any) -> Any:
        return value


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path, tmp_path, [])


def test_all_train_if_no_pod_found_the_run_finished(run: Run) -> None:
    other = LeaderOfTwo({"runUri": run.directory.uri})
    assert not agree_on_run(run.work, run.work.fetched(), run.directory, other).adopted


def test_all_adopt_a_run_that_one_pod_found_finished(run: Run) -> None:
    fetched = run.work.fetched()
    run.directory.finish(record_of(run.spec, fetched))
    other = LeaderOfTwo({"runUri": run.directory.uri, "adopted": True})
    assert not fetched.adopted
    assert agree_on_run(run.work, fetched, run.directory, other).adopted
    report = export.run(run.spec, run.work, ProgressPusher(None, None))
    assert report.outcome is Outcome.ADOPTED, "the next containers adopt it too"


def test_data_that_changed_between_two_fetches_is_refused(run: Run) -> None:
    other = LeaderOfTwo({"runUri": "file:///store/runs/another"})
    with pytest.raises(RunFailure, match="found different data") as failure:
        agree_on_run(run.work, run.work.fetched(), run.directory, other)
    assert failure.value.failure is FailureClass.STORAGE_CORRUPT


def test_only_the_first_pod_exports_and_reports_progress(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = run.spec.model_copy(update={"world": World(nodes=2), "progress_url": "http://operator/v1/progress"})
    with pytest.raises(RunFailure, match="has not finished"):
        export.run(spec, run.work, ProgressPusher(None, None))
    assert ProgressPusher.of(spec)._url == "http://operator/v1/progress"
    monkeypatch.setenv(INDEX_VARIABLE, "1")
    assert export.run(spec, run.work, ProgressPusher(None, None)).outcome is Outcome.SUCCEEDED
    assert ProgressPusher.of(spec)._url is None
