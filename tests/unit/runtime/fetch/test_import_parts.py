"""Finished files of an import: the next attempt, in another pod, moves only what is missing."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.hub_server import Fault, Hub, Repository, hub
from tests.unit.runtime.fetch.hub_imports import (
    KEY,
    LARGE,
    SCHEMES,
    SCHEMES_BY_PROCESS,
    URI,
    content_of,
    failure_of,
    import_model,
    servers,
    start_import,
)
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Store
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch import imports
from tunesmith_runtime.fetch.hub import Download
from tunesmith_runtime.fetch.hub_types import digests_of
from tunesmith_runtime.fetch.import_parts import Parts
from tunesmith_runtime.storage import Storage, join, open_storage
from tunesmith_runtime.storage.directory import read_manifest


def parts_in(storage: Storage, store: Store) -> dict[str, bytes]:
    """Path and content of the parts of the import."""
    folder = join(store.uri, "models", KEY, "parts")
    return {
        entry.path.partition("/")[2]: storage.read_bytes(join(folder, entry.path)) or b""
        for entry in storage.list(folder)
    }


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_next_attempt_downloads_only_what_is_missing(tmp_path: Path, store: Store, large: Hub, scheme: str) -> None:
    storage = open_storage(store)
    large.faults.append(Fault("model-3.safetensors", status=503, times=100))
    failure = failure_of(store, tmp_path / "1", scheme, large.url)
    assert failure.failure is FailureClass.HUB_UNREACHABLE
    kept = parts_in(storage, store)
    assert kept == {path: content for path, content in LARGE.items() if path != "model-3.safetensors"}
    large.faults.clear()
    large.sent.clear()
    uri, digest = import_model(store, tmp_path / "2", URI.format(scheme), servers(scheme, large.url))
    assert large.sent == {"model-3.safetensors": 200_000}
    assert content_of(store, uri) == LARGE
    manifest = read_manifest(storage, uri)
    assert manifest is not None
    assert manifest.digest == digest
    assert parts_in(storage, store) == {}
    assert [entry.path for entry in storage.list(join(store.uri, "models", KEY)) if "/" not in entry.path] == [
        "model.json"
    ]


def test_a_damaged_part_is_downloaded_again(tmp_path: Path, folder_store: Store, large: Hub) -> None:
    large.faults.append(Fault("model-3.safetensors", status=503, times=100))
    failure_of(folder_store, tmp_path / "1", "hf", large.url)
    [part] = (tmp_path / "store/models" / KEY / "parts").glob("*/model-1.safetensors")
    part.write_bytes(b"x" * 200_000)
    large.faults.clear()
    large.sent.clear()
    uri, _ = import_model(folder_store, tmp_path / "2", URI.format("hf"), servers("hf", large.url))
    assert set(large.sent) == {"model-1.safetensors", "model-3.safetensors"}
    assert content_of(folder_store, uri) == LARGE


def test_a_part_of_an_older_revision_is_not_used(tmp_path: Path, folder_store: Store, large: Hub) -> None:
    large.faults.append(Fault("model-3.safetensors", status=503, times=100))
    failure_of(folder_store, tmp_path / "1", "hf", large.url)
    large.faults.clear()
    newer = LARGE | {"model-1.safetensors": b"newer" * 1000}
    large.repositories["org/large"].files = newer
    uri, _ = import_model(folder_store, tmp_path / "2", URI.format("hf"), servers("hf", large.url))
    assert content_of(folder_store, uri) == newer


def test_a_model_at_fault_leaves_no_parts(tmp_path: Path, folder_store: Store, large: Hub) -> None:
    storage = open_storage(folder_store)
    parts = Parts(storage, join(folder_store.uri, "models", KEY))

    def make(folder: Path) -> None:
        Download(URI.format("hf"), folder, False, False, lambda _: None, parts).run(servers("hf", large.url))
        assert parts_in(storage, folder_store)
        raise RunFailure(FailureClass.BAD_MODEL, "NaN in model-1.safetensors")

    with pytest.raises(RunFailure, match="NaN"):
        imports.import_once(storage, folder_store.uri, KEY, "hf://org/large", tmp_path / "1", make, parts)
    assert storage.list(folder_store.uri) == []


def test_parts_are_copied_within_the_store_and_uploaded_once(
    tmp_path: Path, store: Store, large: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = list[str]()
    upload = Storage.upload

    def record(self: Storage, path: Path, uri: str, is_addressed: bool = False) -> None:
        uploaded.append(uri)
        upload(self, path, uri, is_addressed)

    monkeypatch.setattr(Storage, "upload", record)
    uri, _ = import_model(store, tmp_path / "1", URI.format("hf"), servers("hf", large.url))
    assert len(uploaded) == len(LARGE)
    assert all("/parts/" in each for each in uploaded)
    assert content_of(store, uri) == LARGE


def test_a_store_without_copies_gets_the_files_uploaded(
    tmp_path: Path, folder_store: Store, large: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Storage, source: str, target: str) -> None:
        raise RunFailure(FailureClass.STORAGE_UNSUPPORTED, "501")

    monkeypatch.setattr(Storage, "copy", refuse)
    uri, _ = import_model(folder_store, tmp_path / "1", URI.format("hf"), servers("hf", large.url))
    assert content_of(folder_store, uri) == LARGE


def test_two_imports_of_one_model_at_a_time_give_one(tmp_path: Path, store: Store, large: Hub) -> None:
    large.faults.append(Fault("/cdn/", block_seconds=0.02))
    found = list[tuple[str, str]]()
    threads = [
        threading.Thread(
            target=lambda pod=pod: found.append(
                import_model(store, tmp_path / pod, URI.format("hf"), servers("hf", large.url))
            )
        )
        for pod in ("1", "2", "3")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert large.sent == {path: len(content) for path, content in LARGE.items()}


def verify(store: Store, scratch: Path) -> set[str]:
    """Check that nothing in the store contradicts its name or manifest; return the paths of the parts."""
    storage, folder = open_storage(store), join(store.uri, "models", KEY)
    kept, folders = set(), set()
    for entry in storage.list(folder):
        first, _, rest = entry.path.partition("/")
        if first == "parts":
            name, _, path = rest.partition("/")
            storage.download(join(folder, entry.path), scratch, entry)
            kind, _, hex_ = name.partition("-")
            assert digests_of(scratch)[kind] == hex_, entry.path
            kept.add(path)
        elif rest:
            folders.add(join(folder, first))
    for uri in folders:
        if manifest := read_manifest(storage, uri):
            sums = {
                file.path: hashlib.sha256(storage.read_bytes(join(uri, file.path)) or b"") for file in manifest.files
            }
            assert {path: each.hexdigest() for path, each in sums.items()} == {
                file.path: file.sha256 for file in manifest.files
            }
    if pointer := storage.read_bytes(join(folder, "model.json")):
        published = read_manifest(storage, json.loads(pointer)["uri"])
        assert published is not None
        assert published.digest == json.loads(pointer)["digest"]
    return kept


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.deep)])
@pytest.mark.parametrize("scheme", SCHEMES_BY_PROCESS)
def test_an_import_that_is_killed_anywhere_leaves_a_store_that_verifies_and_the_next_moves_only_the_rest(
    tmp_path: Path, store: Store, large: Hub, scheme: str, kills: int
) -> None:
    choose = random.Random(11)
    total = sum(map(len, LARGE.values()))
    large.faults.append(Fault("/cdn/", block_seconds=0.005))
    killed, storage = 0, open_storage(store)
    for number in range(kills):
        one = store.model_copy(update={"uri": f"{store.uri}-{number}"})
        folder = join(one.uri, "models", KEY)
        after, late = choose.randrange(total + 1), choose.choice([0.0, choose.random() * 0.1])
        large.sent.clear()
        process = start_import(one, tmp_path / f"killed-{number}", URI.format(scheme), servers(scheme, large.url))
        while process.is_alive() and large.sent.total() < after:
            time.sleep(0.001)
        time.sleep(late)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        kept = verify(one, tmp_path / "part")
        is_finished = storage.read_bytes(join(folder, "model.json")) is not None
        large.sent.clear()
        process = start_import(one, tmp_path / f"next-{number}", URI.format(scheme), servers(scheme, large.url))
        process.join(120)
        assert process.exitcode == 0
        # A server may complete an upload after the process that sent it has gone, so that fewer files are missing.
        assert set(large.sent) <= (set() if is_finished else set(LARGE) - kept)
        assert verify(one, tmp_path / "part") == set()
        assert storage.read_bytes(join(folder, "claim.json")) is None
    assert killed >= kills // 3, "kills without a delay come during a transfer, on all but the busiest machines"


def test_a_server_without_digests_is_imported_and_leaves_no_parts(tmp_path: Path, folder_store: Store) -> None:
    with hub({"org/large": Repository(dict(LARGE), has_digests=False)}) as server:
        uri, _ = import_model(folder_store, tmp_path / "1", URI.format("hf"), servers("hf", server.url))
        assert content_of(folder_store, uri) == LARGE
