"""trained.json: the first result counts, and a second pod deletes its own weights."""

from __future__ import annotations

from pathlib import Path

from tunesmith_api.finetunejob_status import Metrics, Rows
from tunesmith_api.run import Store
from tunesmith_api.status import ArtifactType
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.train.training_result import TrainingResult, read_result, write_result


def trained(run: RunDirectory, folder: Path, weights: str) -> TrainingResult:
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_text(weights)
    artifact = run.publish(ArtifactType.ADAPTER, folder)
    return TrainingResult(artifact=artifact, rows=Rows(kept=1), metrics=Metrics(steps=1), seeds={"training": 1})


def test_the_second_pod_keeps_the_first_result_and_deletes_its_own(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/store/run"
    run = RunDirectory(open_storage(Store(uri=uri)), uri, tmp_path / "local")
    first, second = (trained(run, tmp_path / name, name) for name in ("a", "b"))
    assert write_result(run, first) == first
    assert write_result(run, second) == first
    assert read_result(run) == first
    assert run.storage.list(first.artifact.uri) != []
    assert run.storage.list(second.artifact.uri) == []


def test_an_equal_second_result_is_kept(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/store/run"
    run = RunDirectory(open_storage(Store(uri=uri)), uri, tmp_path / "local")
    first, second = (trained(run, tmp_path / name, "same") for name in ("a", "b"))
    write_result(run, first)
    assert write_result(run, second) == first
    assert run.storage.list(first.artifact.uri) != []


def test_rows_of_an_earlier_version_are_read_and_ignored_keys_are_kept() -> None:
    rows = {"kept": 1, "dropped": [{"reason": "TooLong", "count": 2}]}
    assert Rows.model_validate(rows).to_dict() == rows
    rows["ignoredKeys"] = [{"key": "messages[].id", "count": 3}]
    assert Rows.model_validate(rows).to_dict() == rows
