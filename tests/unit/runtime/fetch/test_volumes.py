"""Models and data in volumes, as the verbs of a pod read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.runtime.fetch.support import ADAPTER, MODEL, ROWS, Fetcher, lines, names
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import ModelRole, Store
from tunesmith_runtime import storage
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage.volumes import Volumes


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mounted volume of claim `team`, with a model, an adapter and rows."""
    root = tmp_path / "volumes"
    monkeypatch.setattr(storage, "_volumes", lambda: Volumes(root))
    for folder, files in {"base": MODEL, "adapter": ADAPTER, "data": {"a.jsonl": ROWS, "b.jsonl": ROWS * 2}}.items():
        (root / "team" / folder).mkdir(parents=True)
        for name, content in files.items():
            (root / "team" / folder / name).write_bytes(content)
    return root / "team"


@pytest.fixture
def fetcher(tmp_path: Path, volume: Path) -> Fetcher:
    return Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)


def test_a_tuning_reads_its_model_and_its_rows_from_volumes(fetcher: Fetcher) -> None:
    spec = fetcher.job("pvc://team/base", "pvc://team/data", validation={"uri": "pvc://team/data/a.jsonl"})
    prepared, _ = fetcher.prepare(spec)
    report, work = fetcher.fetch(spec)
    assert (report.outcome, report.model_uri, report.run_uri) == ("Succeeded", "pvc://team/base", prepared.run_uri)
    assert names(work.model()) == {*MODEL, "manifest.json"}
    assert [(file.uri, file.dataset) for file in work.data_files()] == [
        ("pvc://team/data/a.jsonl", 0), ("pvc://team/data/b.jsonl", 0), ("pvc://team/data/a.jsonl", None)
    ]  # fmt: skip
    assert [len(lines(work.data / file.path)) for file in work.data_files()] == [1, 2, 1]


def test_changed_content_at_the_same_path_is_a_new_run(fetcher: Fetcher, volume: Path) -> None:
    spec = fetcher.job("pvc://team/base", "pvc://team/data/a.jsonl")
    first, again = (fetcher.prepare(spec)[0].run_uri for _ in range(2))
    assert first == again
    (volume / "data" / "a.jsonl").write_bytes(ROWS.replace(b"a", b"b"))
    assert fetcher.prepare(spec)[0].run_uri != first


def test_an_evaluation_reads_its_questions_from_a_volume(fetcher: Fetcher) -> None:
    benchmarks = [{"name": "own", "dataset": {"uri": "pvc://team/data/b.jsonl"}}]
    report, work = fetcher.fetch(fetcher.spec("EvalJob", "pvc://team/base", {"benchmarks": benchmarks}, role="model"))
    assert report.outcome == "Succeeded"
    assert names(work.benchmarks) == {"own/b.jsonl"}


def test_a_service_reads_its_model_and_its_adapters_from_a_volume(fetcher: Fetcher) -> None:
    adapters = [{"name": "fr", "model": {"uri": "pvc://team/adapter", "base": {"uri": "pvc://team/base"}}}]
    report, work = fetcher.fetch(fetcher.spec("InferenceService", "pvc://team/base", {}, adapters=adapters))
    assert report.model_uri == "pvc://team/base"
    assert names(work.adapters / "fr") == {*ADAPTER, "manifest.json"}


@pytest.mark.parametrize("place", ["pvc://team", "file://{}/store"])
def test_an_adapter_is_served_on_the_base_that_its_tuning_has_reported(fetcher: Fetcher, place: str) -> None:
    """The base has no manifest: its digest is known from the tuning's pod, which has computed it."""
    fetcher.put("base", MODEL)
    base = place.format(fetcher.folder) + "/base"
    digest = fetcher.fetch(fetcher.job(base, "pvc://team/data"))[0].model_digest
    adapter = {"uri": fetcher.put("adapter", ADAPTER), "base": {"uri": base, "digest": digest}}
    _, work = fetcher.fetch(fetcher.spec("InferenceService", adapter, {}))
    assert names(work.model()) == {*MODEL, "manifest.json"}
    assert names(work.model(ModelRole.ADAPTER)) == {*ADAPTER, "manifest.json"}


def test_a_base_that_has_changed_since_its_adapter_was_trained_is_refused(fetcher: Fetcher, volume: Path) -> None:
    digest = fetcher.fetch(fetcher.job("pvc://team/base", "pvc://team/data"))[0].model_digest
    (volume / "base" / "generation_config.json").write_text("{}")
    adapter = {"uri": "pvc://team/adapter", "base": {"uri": "pvc://team/base", "digest": digest}}
    with pytest.raises(RunFailure, match="has changed since it was published") as failure:
        fetcher.fetch(fetcher.spec("InferenceService", adapter, {}))
    assert failure.value.failure is FailureClass.STORAGE_CORRUPT
