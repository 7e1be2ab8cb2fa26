"""Pods that train together do one run: what one of them has found holds for all."""

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
from tunesmith_runtime.train.agreement import agree_on_run
from tunesmith_runtime.train.process_group import ProcessGroup


class WithAnother(ProcessGroup):
    """One of two processes; what the other one has found is given."""

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__(rank=0, size=2)
        self._found = json.dumps(found).encode()

    def gather(self, content: bytes) -> list[bytes]:
        return [content, self._found]

    def broadcast(self, value: Any) -> Any:
        return value


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path, tmp_path, [])


def test_where_none_has_found_it_finished_all_train(run: Run) -> None:
    other = WithAnother({"runUri": run.directory.uri})
    assert not agree_on_run(run.work, run.work.fetched(), run.directory, other).adopted


def test_a_run_that_was_finished_while_pods_fetched_is_adopted_by_all(run: Run) -> None:
    fetched = run.work.fetched()
    run.directory.finish(record_of(run.spec, fetched))
    other = WithAnother({"runUri": run.directory.uri, "adopted": True})
    assert not fetched.adopted
    assert agree_on_run(run.work, fetched, run.directory, other).adopted
    report = export.run(run.spec, run.work, ProgressPusher(None, None))
    assert report.outcome is Outcome.ADOPTED, "the containers after it know too"


def test_data_that_changed_between_two_pods_make_no_run(run: Run) -> None:
    other = WithAnother({"runUri": "file:///store/runs/another"})
    with pytest.raises(RunFailure, match="found different data") as failure:
        agree_on_run(run.work, run.work.fetched(), run.directory, other)
    assert failure.value.failure is FailureClass.STORAGE_CORRUPT


def test_only_the_first_pod_exports_and_tells_progress(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = run.spec.model_copy(update={"world": World(nodes=2), "progress_url": "http://operator/v1/progress"})
    with pytest.raises(RunFailure, match="has not finished"):
        export.run(spec, run.work, ProgressPusher(None, None))
    assert ProgressPusher.of(spec)._url == "http://operator/v1/progress"
    monkeypatch.setenv(INDEX_VARIABLE, "1")
    assert export.run(spec, run.work, ProgressPusher(None, None)).outcome is Outcome.SUCCEEDED
    assert ProgressPusher.of(spec)._url is None
