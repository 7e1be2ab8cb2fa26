"""The cache, as the fetch containers of pods on a node use it, over a real S3 server and over files."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import threading
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.fetch.support import MODEL, ROWS, WEIGHTS, Fetcher
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import ModelRole, RunSpec, Store, Verb
from tunesmith_runtime import cache as module
from tunesmith_runtime.cache import Cache, blobs, cache_in_use, download
from tunesmith_runtime.cache.blobs import Blobs
from tunesmith_runtime.cache.leases import Leases
from tunesmith_runtime.cache.names import Names
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage import Entry, Storage, join, open_storage
from tunesmith_runtime.storage.directory import publish_directory
from tunesmith_runtime.storage.manifest import sha256_of
from tunesmith_runtime.workdir import Work

MIB = 1 << 20
DiskUsage = namedtuple("DiskUsage", "total used free")


@pytest.fixture(autouse=True)
def empty_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests do not depend on the free space of this machine."""
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: DiskUsage(1 << 40, 0, 1 << 40))


class Node:
    """A node with a cache, and pods that download from a store through it."""

    def __init__(self, store: Store, folder: Path, limit_bytes: int | None = None) -> None:
        self.store, self.folder, self.limit_bytes = store, folder, limit_bytes
        self.root = folder / "cache"
        self.downloads: list[str] = []
        self.pods = 0

    def storage(self) -> Storage:
        """The store, which records what is downloaded."""
        storage = open_storage(self.store)
        whole = storage.download

        def recorded(uri: str, path: Path, entry: Entry | None = None) -> str:
            self.downloads.append(uri.rsplit("/", 1)[-1])
            return whole(uri, path, entry)

        storage.download = recorded  # type: ignore[method-assign]
        return storage

    def cache(self, holder: str, namespace: str = "team") -> Cache:
        names = Names(self.root / "names", namespace, self.store.endpoint)
        return Cache(self.root, Blobs(self.root), Leases(self.root / "leases", holder), names, self.limit_bytes)

    def start_pod(self, uri: str, namespace: str = "team") -> tuple[Path, list[str]]:
        """Download a folder in a new pod. Returns its local folder, and the names of the files that were transferred."""
        self.pods += 1
        self.downloads.clear()
        directory = self.folder / f"pod-{self.pods}"
        self.cache(f"pod-{self.pods}", namespace).download_directory(self.storage(), uri, directory)
        return directory, sorted(self.downloads)

    def end_pod(self, number: int) -> None:
        """The lease of a pod that is gone has ended."""
        os.utime(self.root / "leases" / f"pod-{number}", (0, 0))

    def publish(self, name: str, **files: bytes) -> str:
        """A folder with a manifest in the store; its URI."""
        local = self.folder / "made" / name
        local.mkdir(parents=True)
        for path, content in files.items():
            (local / path).write_bytes(content)
        return publish_directory(open_storage(self.store), local, self.store.uri, name).uri

    def upload(self, name: str, **files: bytes) -> str:
        """A folder without a manifest in the store; its URI."""
        for path, content in files.items():
            open_storage(self.store).write_bytes(join(self.store.uri, name, path), content)
        return join(self.store.uri, name)

    def blob(self, content: bytes) -> Path:
        """The file of the cache with that content."""
        (found,) = [path for path in self.root.glob("blobs/*/data") if path.read_bytes() == content]
        return found

    @property
    def contents(self) -> set[bytes]:
        """The contents of the files in the cache."""
        return {path.read_bytes() for path in self.root.glob("blobs/*/data")}


def large(seed: int, size: int = MIB) -> bytes:
    """The content of a large file."""
    return random.Random(seed).randbytes(size)


@pytest.fixture
def node(store: Store, tmp_path: Path) -> Node:
    return Node(store, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Node:
    """A node over local files, for tests that do not depend on the kind of store."""
    return Node(Store(uri=f"file://{tmp_path}/store"), tmp_path)


@pytest.mark.parametrize("has_manifest", [True, False])
def test_the_second_pod_of_a_node_transfers_only_the_small_files(node: Node, has_manifest: bool) -> None:
    make = node.publish if has_manifest else node.upload
    uri = make("base", weights=large(1), config=b"{}")
    first, transferred = node.start_pod(uri)
    assert transferred == ["config", "weights"]
    second, transferred = node.start_pod(uri)
    assert transferred == ["config"]
    for directory in (first, second):
        assert (directory / "weights").read_bytes() == large(1)
        assert (directory / "weights").readlink() == node.blob(large(1))
        assert not (directory / "config").is_symlink()
    assert (first / "manifest.json").read_bytes() == (second / "manifest.json").read_bytes()


def test_equal_files_of_different_models_are_kept_once(local: Node) -> None:
    local.start_pod(local.publish("one", weights=large(1), config=b"1"))
    _, transferred = local.start_pod(local.publish("two", weights=large(1), config=b"2"))
    assert transferred == ["config"]
    assert local.contents == {large(1)}


def test_a_changed_object_of_a_folder_without_manifest_is_transferred(node: Node) -> None:
    uri = node.upload("base", weights=large(1))
    node.start_pod(uri)
    node.upload("base", weights=large(2))
    directory, transferred = node.start_pod(uri)
    assert transferred == ["weights"]
    assert (directory / "weights").read_bytes() == large(2)


def test_an_object_that_is_replaced_during_its_download_is_not_taken_for_the_earlier_one(node: Node) -> None:
    uri, storage = node.upload("base", weights=large(1)), node.storage()
    whole = storage.list

    def replaced_behind(folder: str) -> list[Entry]:
        found = whole(folder)
        storage.list = whole  # type: ignore[method-assign]
        node.upload("base", weights=large(2))
        return found

    storage.list = replaced_behind  # type: ignore[method-assign]
    node.cache("pod-0").download_directory(storage, uri, node.folder / "pod-0")
    assert (node.folder / "pod-0" / "weights").read_bytes() == large(2)
    node.upload("base", weights=large(1))
    directory, _ = node.start_pod(uri)
    assert (directory / "weights").read_bytes() == large(1)


def test_the_names_of_another_namespace_are_not_trusted(local: Node) -> None:
    uri = local.upload("base", weights=large(1))
    local.start_pod(uri)
    assert local.start_pod(uri, namespace="other")[1] == ["weights"]
    assert local.start_pod(uri, namespace="other")[1] == []


def test_a_file_that_an_import_has_left_is_copied_and_not_downloaded_again(local: Node) -> None:
    uri, directory = local.publish("base", weights=large(1)), local.folder / "pod"
    directory.mkdir()
    (directory / "weights").write_bytes(large(1))
    local.cache("pod").download_directory(local.storage(), uri, directory)
    assert local.downloads == []
    assert (directory / "weights").readlink() == local.blob(large(1))


def test_a_damaged_file_is_found_at_its_next_use_and_replaced(local: Node) -> None:
    uri = local.publish("base", weights=large(1))
    local.start_pod(uri)
    blob = local.blob(large(1))
    blob.chmod(0o644)
    blob.write_bytes(b"x" + large(1)[1:])
    directory, transferred = local.start_pod(uri)
    assert transferred == ["weights"]
    assert (directory / "weights").read_bytes() == large(1)


def test_damage_that_leaves_size_and_time_is_found_after_the_next_boot(
    local: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power failure, when a file has its size but not its content."""
    uri = local.publish("base", weights=large(1))
    local.start_pod(uri)
    blob, status = local.blob(large(1)), local.blob(large(1)).stat()
    blob.chmod(0o644)
    blob.write_bytes(bytes(MIB))
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert local.start_pod(uri)[1] == [], "within a boot the record is trusted"
    boot = local.folder / "boot_id"
    boot.write_text("another-boot")
    monkeypatch.setattr(blobs, "BOOT_ID", boot)
    directory, transferred = local.start_pod(uri)
    assert transferred == ["weights"]
    assert (directory / "weights").read_bytes() == large(1)


def test_content_that_does_not_match_its_manifest_never_enters_the_cache(local: Node) -> None:
    uri = local.publish("base", weights=large(1))
    local.storage().write_bytes(join(uri, "weights"), large(2))
    with pytest.raises(RunFailure) as failure:
        local.start_pod(uri)
    assert failure.value.failure is FailureClass.STORAGE_CORRUPT
    assert local.contents == set()


def test_the_least_recently_used_model_makes_room(local: Node) -> None:
    local.limit_bytes = 2 * MIB
    uris = [local.publish(f"model-{number}", weights=large(number)) for number in range(3)]
    for number, uri in enumerate(uris[:2], 1):
        local.start_pod(uri)
        local.end_pod(number)
        time.sleep(0.01)
    local.start_pod(uris[0])
    local.end_pod(3)
    local.start_pod(uris[2])
    assert local.contents == {large(0), large(2)}


def test_what_a_pod_uses_is_never_evicted_and_the_next_pod_downloads_past_the_cache(
    local: Node, caplog: pytest.LogCaptureFixture
) -> None:
    local.limit_bytes = MIB
    local.start_pod(local.publish("used", weights=large(1)))
    directory, transferred = local.start_pod(local.publish("next", weights=large(2)))
    assert transferred == ["weights"]
    assert not (directory / "weights").is_symlink()
    assert local.contents == {large(1)}
    assert "raise cache.maxBytes" in caplog.text
    local.end_pod(1)
    directory, _ = local.start_pod(local.publish("third", weights=large(3)))
    assert (directory / "weights").is_symlink()
    assert local.contents == {large(3)}


def test_a_full_disk_is_left_to_the_node(local: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: DiskUsage(100 * MIB, 0, 15 * MIB))
    directory, _ = local.start_pod(local.publish("base", weights=large(1)))
    assert not (directory / "weights").is_symlink()
    assert local.contents == set()


def test_pods_that_start_together_transfer_a_file_once(local: Node) -> None:
    uri = local.publish("base", weights=large(1, 8 * MIB))
    storage, start = local.storage(), threading.Barrier(6)

    def pod(number: int) -> None:
        start.wait()
        local.cache(f"pod-{number}").download_directory(storage, uri, local.folder / f"pod-{number}")

    threads = [threading.Thread(target=pod, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert local.downloads == ["weights"]
    assert {sha256_of(local.folder / f"pod-{number}" / "weights") for number in range(6)} == {
        local.blob(large(1, 8 * MIB)).parent.name
    }


def fetch_in_a_process(node: Node, uri: str, number: int) -> None:
    node.cache(f"killed-{number}").download_directory(node.storage(), uri, node.folder / f"killed-{number}")
    os._exit(0)


def test_a_kill_at_any_moment_leaves_a_cache_that_serves_the_next_pod(local: Node) -> None:
    uri = local.publish("base", **{f"weights-{number}": large(number, 4 * MIB) for number in range(4)})
    chance, ended = random.Random(7), 0
    for number in range(20):
        process = multiprocessing.get_context("fork").Process(target=fetch_in_a_process, args=(local, uri, number))
        process.start()
        process.join(chance.uniform(0.0, 0.12))
        ended += process.exitcode == 0
        process.kill()
        process.join()
        for path in local.root.glob("blobs/*/data"):
            assert sha256_of(path) == path.parent.name
        if number % 4 == 3:
            for folder in list(local.root.glob("blobs/*"))[:1]:
                local.cache("none").blobs.evict(folder.name)
    directory, _ = local.start_pod(uri)
    assert all((directory / f"weights-{number}").read_bytes() == large(number, 4 * MIB) for number in range(4))
    assert list((local.root / "incoming").iterdir()) == []


@pytest.mark.parametrize("broken", ["cache", "cache/locks", "cache/leases"])
def test_a_cache_that_does_not_work_only_costs_time(local: Node, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    """A file in the place of a folder fails for every user, root included."""
    (local.folder / broken).parent.mkdir(exist_ok=True)
    (local.folder / broken).touch()
    directory, transferred = local.start_pod(local.publish("base", weights=large(1)))
    assert transferred == ["weights"]
    assert (directory / "weights").read_bytes() == large(1)
    assert "files are downloaded without it" in caplog.text


def test_a_failure_of_the_store_is_not_blamed_on_the_cache(local: Node) -> None:
    with pytest.raises(RunFailure, match="nothing at"):
        local.start_pod(join(local.store.uri, "absent"))


def test_the_log_has_the_share_that_came_from_the_cache(local: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    uri = local.publish("base", weights=large(1))
    local.start_pod(uri)
    assert "0.0 of 1.0 MB from the cache" in caplog.text
    local.start_pod(uri)
    assert "1.0 of 1.0 MB from the cache" in caplog.text


# The verb fetch with a cache.


@pytest.fixture
def fetcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetcher:
    """Pods whose models are all large enough for the cache."""
    monkeypatch.setattr(download, "SMALLEST_BYTES", 1)
    return Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)


def with_cache(fetcher: Fetcher, spec: RunSpec, **changes: Any) -> RunSpec:
    folder = fetcher.folder / "cache"
    cache = {"path": str(folder), "leases": str(folder / "leases"), **changes}
    return RunSpec.model_validate({**spec.to_dict(), "cache": cache})


def test_a_service_reads_its_model_and_adapters_through_the_cache(fetcher: Fetcher) -> None:
    spec = with_cache(fetcher, fetcher.spec("InferenceService", fetcher.put("base", MODEL), {}))
    plain, _ = fetcher.fetch(fetcher.spec("InferenceService", spec.base.uri, {}))
    for _ in range(2):
        report, work = fetcher.fetch(spec)
        assert (report.outcome, report.model_digest) == ("Succeeded", plain.model_digest)
        assert (work.model() / "model.safetensors").read_bytes() == WEIGHTS
        assert {path.name for path in work.model().iterdir() if path.is_symlink()} == {*MODEL}


def test_a_tuning_reads_its_model_through_the_cache_and_counts_no_disk_for_it(fetcher: Fetcher) -> None:
    job = fetcher.job(fetcher.put("base", MODEL), fetcher.put("data", {"a.jsonl": ROWS}))
    report, work = fetcher.fetch(with_cache(fetcher, job))
    assert report.outcome == "Succeeded"
    assert work.model(ModelRole.BASE).joinpath("config.json").is_symlink()


def test_the_files_of_a_running_pod_are_leased_and_their_loss_is_logged(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_POD", "support-abc")
    spec = with_cache(fetcher, fetcher.spec("InferenceService", fetcher.put("base", MODEL), {}))
    _, work = fetcher.fetch(spec)
    lease = fetcher.folder / "cache" / "leases" / "default.support-abc"
    assert lease.is_file()
    os.utime(lease, (0, 0))
    with cache_in_use(Verb.SERVE, spec, work):
        deadline = time.monotonic() + 10
        while lease.stat().st_mtime < time.time() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lease.stat().st_mtime > time.time()
    (work.model() / "model.safetensors").resolve().unlink()
    with pytest.raises(RunFailure, match="is gone from the cache") as failure, cache_in_use(Verb.SERVE, spec, work):
        pass
    assert failure.value.failure is FailureClass.STORAGE_CORRUPT
    assert "delete the pod" in (failure.value.hint or "")


def test_a_run_without_a_cache_has_none(fetcher: Fetcher, tmp_path: Path) -> None:
    spec = fetcher.spec("InferenceService", fetcher.put("base", MODEL), {})
    assert module.open_cache(spec) is None
    with cache_in_use(Verb.SERVE, spec, Work(tmp_path / "work")):
        pass


def test_max_bytes_is_a_quantity(fetcher: Fetcher) -> None:
    spec = with_cache(fetcher, fetcher.spec("InferenceService", "s3://a/b", {}), maxBytes="1.5Gi")
    cache = module.open_cache(spec)
    assert cache is not None
    assert cache.limit_bytes == 3 << 29
