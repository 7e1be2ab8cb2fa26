"""A model that must be converted is imported once for all pods that need it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Store
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch import imports
from tunesmith_runtime.fetch.imports import import_once, imported, key_of
from tunesmith_runtime.storage import Storage, join, open_storage


@pytest.fixture
def storage(store: Store, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr(imports, "POLL_SECONDS", 0.05)
    return open_storage(store)


class Maker:
    """Makes a folder, and counts how often."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.times, self.seconds = 0, seconds

    def __call__(self, directory: Path) -> None:
        self.times += 1
        time.sleep(self.seconds)
        (directory / "config.json").write_text("{}")


def test_pods_that_ask_at_once_import_once(storage: Storage, store: Store, tmp_path: Path) -> None:
    make, found = Maker(seconds=1.0), list[tuple[str, str]]()
    threads = [
        threading.Thread(
            target=lambda pod=pod: found.append(import_once(storage, store.uri, "k", "hf://a/b", tmp_path / pod, make))
        )
        for pod in ("1", "2", "3", "4")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert make.times == 1
    assert len(found) == 4
    assert len(set(found)) == 1
    assert [entry.path.split("/")[-1] for entry in storage.list(join(store.uri, "models/k"))] == [
        "config.json",
        "manifest.json",
        "model.json",
    ]


def test_a_finished_import_is_used_without_making_anything(storage: Storage, store: Store, tmp_path: Path) -> None:
    first = import_once(storage, store.uri, "k", "hf://a/b", tmp_path / "1", Maker())
    make = Maker()
    assert import_once(storage, store.uri, "k", "hf://a/b", tmp_path / "2", make) == first
    assert make.times == 0
    assert imported(storage, store.uri, "k") == first


def test_an_import_that_fails_leaves_nothing_and_the_next_one_tries(
    storage: Storage, store: Store, tmp_path: Path
) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, "not there")

    with pytest.raises(RunFailure, match="not there"):
        import_once(storage, store.uri, "k", "hf://a/b", tmp_path / "1", fail)
    assert storage.list(store.uri) == []
    assert not (tmp_path / "1").exists()
    assert import_once(storage, store.uri, "k", "hf://a/b", tmp_path / "2", Maker())


def test_the_claim_of_a_dead_pod_is_taken_over(
    storage: Storage, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "STALE_SECONDS", 0.3)
    storage.write_bytes(join(store.uri, "models/k/claim.json"), b'{"holder": "dead", "beat": "1"}')
    make = Maker()
    import_once(storage, store.uri, "k", "hf://a/b", tmp_path / "1", make)
    assert make.times == 1
    assert storage.stat(join(store.uri, "models/k/claim.json")) is None


def test_the_claim_of_a_pod_at_work_is_left_to_it(
    storage: Storage, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pod works for longer than a claim lasts and renews it, so the second waits on."""
    monkeypatch.setattr(imports, "STALE_SECONDS", 2.0)
    monkeypatch.setattr(imports, "RENEW_SECONDS", 0.1)
    slow, second = Maker(seconds=4.0), Maker()
    first = threading.Thread(target=import_once, args=(storage, store.uri, "k", "hf://a/b", tmp_path / "1", slow))
    first.start()
    while not slow.times:
        time.sleep(0.01)
    import_once(storage, store.uri, "k", "hf://a/b", tmp_path / "2", second)
    first.join()
    assert (slow.times, second.times) == (1, 0)


def test_of_two_simultaneous_imports_the_first_result_is_kept(storage: Storage, store: Store, tmp_path: Path) -> None:
    """While a pod imports the model, another finishes its import: both then use the other's folder."""
    other = {"uri": "s3://elsewhere/model", "digest": "d", "source": "hf://a/b"}

    def overtaken(directory: Path) -> None:
        (directory / "config.json").write_text("{}")
        storage.write_bytes(join(store.uri, "models/k/model.json"), json.dumps(other).encode())

    assert import_once(storage, store.uri, "k", "hf://a/b", tmp_path / "1", overtaken) == ("s3://elsewhere/model", "d")
    assert [entry.path for entry in storage.list(join(store.uri, "models/k"))] == ["model.json"]


def test_a_pod_that_takes_the_claim_after_the_import_uses_its_result(
    storage: Storage, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pod finishes after the second has read that there is no result, and before it takes the claim."""
    first, second, results = Maker(), Maker(), list[tuple[str, str]]()
    take = imports._Claim.take

    def late(claim: imports._Claim) -> bool:
        if not results:
            results.append(("", ""))
            results.append(import_once(storage, store.uri, "k", "hf://a/b", tmp_path / "1", first))
        return take(claim)

    monkeypatch.setattr(imports._Claim, "take", late)
    found = import_once(storage, store.uri, "k", "hf://a/b", tmp_path / "2", second)
    assert found == results[-1]
    assert (first.times, second.times) == (1, 0)
    assert storage.stat(join(store.uri, "models/k/claim.json")) is None


def test_a_key_depends_on_source_revision_trust_and_server() -> None:
    keys = {
        key_of("hf://a/b", ""),
        key_of("hf://a/c", ""),
        key_of("hf://a/b", "v1"),
        key_of("hf://a/b", "", trusted=True),
        key_of("hf://a/b", "", server={"HF_ENDPOINT": "http://mirror"}),
        key_of("hf://a/b", "", server={"HF_ENDPOINT": "http://other"}),
    }
    assert len(keys) == 6
    assert key_of("hf://a/b", "", server={}) == key_of("hf://a/b", "")
    assert key_of("hf://a/b", "v1") == key_of("hf://a/b", "v1")
    assert all(len(key) == 16 for key in keys)
