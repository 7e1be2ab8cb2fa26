"""A run's folder: the first pod finishes it; only complete checkpoints count, the newest first."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.servers import run_spec
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import RunSpec, Store
from tunesmith_api.status import ArtifactType
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.rundirectory import RunDirectory, RunRecord, open_run, record_of
from tunesmith_runtime.storage import join, open_storage
from tunesmith_runtime.workdir import Fetched, Work


def new_run(tmp_path: Path) -> RunDirectory:
    uri = f"file://{tmp_path}/store/runs/abc"
    return RunDirectory(open_storage(Store(uri=uri)), uri, tmp_path / "run")


def folder(path: Path, **files: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name).write_text(content)
    return path


def spec_of(kind: str = "FineTuneJob", **fields: Any) -> RunSpec:
    return RunSpec.model_validate(run_spec(kind, "demo", **fields))


def record(run: RunDirectory, **found: Any) -> RunRecord:
    return record_of(spec_of(), Fetched(run_id="abc", run_uri=run.uri, fingerprints={"model": "f"}), **found)


def test_an_unfinished_run_has_no_record(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.publish(ArtifactType.ADAPTER, folder(tmp_path / "a", w="1"))
    assert run.finished() is None


def test_the_record_of_a_finished_run_has_inputs_and_results(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    artifact = run.publish(ArtifactType.ADAPTER, folder(tmp_path / "a", w="1"))
    run.finish(record(run, artifacts=[artifact], seeds={"training": 42}, template_hash="t"))
    found = run.finished()
    assert found is not None
    assert found.artifacts == [artifact]
    assert (found.run_id, found.fingerprints, found.seeds, found.template_hash) == (
        "abc",
        {"model": "f"},
        {"training": 42},
        "t",
    )
    assert found.versions["python"].startswith("3.")
    assert "safetensors" in found.versions


def test_the_second_pod_to_finish_adopts_the_firsts_result(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    first, second = (run.publish(ArtifactType.ADAPTER, folder(tmp_path / name, w=name)) for name in ("a", "b"))
    assert run.finish(record(run, artifacts=[first])).artifacts == [first]
    assert run.finish(record(run, artifacts=[second])).artifacts == [first]
    assert run.storage.list(first.uri) != []
    assert run.storage.list(second.uri) == []


def test_a_record_is_written_after_a_spurious_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As S3 does (409) where two writes meet, of which the other may fail as well."""
    run = new_run(tmp_path)
    write, refused = run.storage.write_bytes, list[str]()

    def conflicting(uri: str, content: bytes, if_absent: bool = False) -> bool:
        if if_absent and not refused:
            refused.append(uri)
            return False
        return write(uri, content, if_absent)

    monkeypatch.setattr(run.storage, "write_bytes", conflicting)
    finished = run.finish(record(run))
    assert refused
    assert run.finished() == finished


def test_an_artifact_that_two_pods_share_is_not_deleted(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    artifact = run.publish(ArtifactType.ADAPTER, folder(tmp_path / "a", w="1"))
    run.finish(record(run, artifacts=[artifact]))
    run.finish(record(run, artifacts=[run.publish(ArtifactType.ADAPTER, folder(tmp_path / "b", w="1"))]))
    run.fetch(artifact, tmp_path / "back")
    assert (tmp_path / "back/w").read_text() == "1"


def test_pods_that_finish_simultaneously_see_the_same_result(tmp_path: Path) -> None:
    run, results = new_run(tmp_path), list[str]()
    artifacts = [
        run.publish(ArtifactType.ADAPTER, folder(tmp_path / str(number), w=str(number))) for number in range(4)
    ]
    threads = [
        threading.Thread(
            target=lambda artifact=each: results.append(run.finish(record(run, artifacts=[artifact])).artifacts[0].uri)
        )
        for each in artifacts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(results)) == 1
    assert [each.uri for each in artifacts if run.storage.list(each.uri)] == results[:1]


def test_a_damaged_record_is_reported_with_a_hint(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.storage.write_bytes(join(run.uri, "run.json"), b'{"kind": ')
    with pytest.raises(RunFailure) as failure:
        run.finished()
    assert failure.value.failure is FailureClass.STORAGE_CORRUPT
    assert "run.json" in failure.value.message


def test_the_newest_checkpoint_is_restored_and_old_checkpoints_are_deleted(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for step in (5, 10, 100):
        run.save_checkpoint(folder(tmp_path / f"s{step}", state=str(step)), step, keep=2)
    assert [step for step, _ in run.checkpoints()] == [100, 10]
    found = run.latest_checkpoint(tmp_path / "back")
    assert found is not None
    assert (found.step, (tmp_path / "back/state").read_text()) == (100, "100")


def test_an_incomplete_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.save_checkpoint(folder(tmp_path / "s5", state="5"), 5, keep=2)
    run.storage.write_bytes(join(run.uri, "checkpoints/step-00000009-abc/state"), b"half")
    found = run.latest_checkpoint(tmp_path / "back")
    assert found is not None
    assert found.step == 5


def test_a_damaged_checkpoint_is_skipped_for_its_predecessor(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.save_checkpoint(folder(tmp_path / "s5", state="5"), 5, keep=2)
    newest = run.save_checkpoint(folder(tmp_path / "s9", state="9"), 9, keep=2)
    run.storage.write_bytes(join(newest.uri, "state"), b"x")
    found = run.latest_checkpoint(tmp_path / "back")
    assert found is not None
    assert (found.step, (tmp_path / "back/state").read_text()) == (5, "5")


def test_two_pods_at_one_step_do_not_mix_their_states(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for name in ("a", "b"):
        run.save_checkpoint(folder(tmp_path / name, optimizer=name, weights=name), 7, keep=2)
    run.latest_checkpoint(tmp_path / "back")
    assert (tmp_path / "back/optimizer").read_text() == (tmp_path / "back/weights").read_text()


def test_a_run_without_checkpoints_has_no_latest_checkpoint(tmp_path: Path) -> None:
    assert new_run(tmp_path).latest_checkpoint(tmp_path / "back") is None


def test_a_finished_run_keeps_no_checkpoints(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.save_checkpoint(folder(tmp_path / "s5", state="5"), 5, keep=2)
    run.finish(record(run))
    assert run.checkpoints() == []


def test_json_is_written_once_and_read_by_the_next_attempt(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    assert run.read_json("trained.json") is None
    assert run.write_json("trained.json", {"step": 3}) == {"step": 3}
    assert run.write_json("trained.json", {"step": 4}) == {"step": 3}


def test_containers_after_fetch_open_the_run_it_found(tmp_path: Path) -> None:
    work, spec = Work(tmp_path / "work"), spec_of()
    storage = open_storage(Store(uri=f"file://{tmp_path}/store"))
    with pytest.raises(RunFailure, match=r"fetch\.json is missing"):
        open_run(spec, work, storage)
    work.write_fetched(Fetched(run_id="abc", run_uri="file:///store/runs/abc"))
    assert open_run(spec, work, storage).uri == "file:///store/runs/abc"


def test_the_check_of_a_writable_folder_leaves_no_trace(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.check_writable()
    assert run.storage.list(run.uri) == []
