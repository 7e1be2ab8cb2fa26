"""An upload that is killed at any point leaves a store that verifies, and the next one sends only what is missing."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.limited_store import Answer, limited
from tests.s3 import S3Server
from tests.unit.runtime.storage.publisher import NAME, PART_BYTES, on_requests, run_publisher
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Store
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage import Storage, join, open_storage
from tunesmith_runtime.storage.directory import delete_directory, download_directory, publish_directory, read_manifest
from tunesmith_runtime.storage.manifest import manifest_of
from tunesmith_runtime.storage.s3 import S3
from tunesmith_runtime.storage.s3 import uploads as module

SIZES = {"model-1.safetensors": 2 * PART_BYTES + 11, "model-2.safetensors": 3 * PART_BYTES, "config.json": 700}


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_BYTES", PART_BYTES)
    monkeypatch.setattr(module, "SINGLE_BYTES", 2 * PART_BYTES)


@pytest.fixture
def store(s3: S3Server) -> Store:
    return s3.store(s3.new_bucket())


def new_folder(path: Path) -> Path:
    """A folder with content of its own."""
    path.mkdir()
    for name, size in SIZES.items():
        (path / name).write_bytes(os.urandom(size))
    return path


class Sent:
    """Bytes of the bodies that a storage sends."""

    def __init__(self, storage: Storage, store: Store) -> None:
        self.size_bytes = 0
        backend = storage._backend(store.uri)
        assert isinstance(backend, S3)
        on_requests(backend, self._count)

    def _count(self, request: Any, event_name: str) -> None:
        if event_name.endswith(("UploadPart", "PutObject")) and not request.url.endswith("/manifest.json"):
            self.size_bytes += int(request.headers["Content-Length"])


def stored_bytes(server: S3Server, store: Store, folder_uri: str) -> tuple[int, int]:
    """Bytes of the files below a folder, and of the parts of unfinished uploads."""
    client, bucket = server.client(), store.uri.split("/")[2]
    prefix = folder_uri.split("/", 3)[3] + "/"
    objects = client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    complete = sum(item["Size"] for item in objects if not item["Key"].endswith("/manifest.json"))
    partial = 0
    for item in client.list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", []):
        listed = client.list_parts(Bucket=bucket, Key=item["Key"], UploadId=item["UploadId"])
        partial += sum(part["Size"] for part in listed.get("Parts", []))
    return complete, partial


def uri_of(store: Store, folder: Path) -> str:
    return join(store.uri, f"{NAME}-{manifest_of(folder).digest[:12]}")


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.deep)])
def test_a_kill_at_any_point_leaves_a_store_that_verifies_and_the_rest_is_sent(
    s3: S3Server, store: Store, tmp_path: Path, kills: int
) -> None:
    alive, moments = run_publisher(store, new_folder(tmp_path / "alive"), s3.environment, deadly=-1)
    assert alive.exitcode == 0
    draw, continued, storage = random.Random(11), 0, open_storage(store)
    sent = Sent(storage, store)
    for number in range(kills):
        folder = new_folder(tmp_path / str(number))
        uri, total = uri_of(store, folder), sum(SIZES.values())
        killed, _ = run_publisher(store, folder, s3.environment, deadly=draw.randint(1, moments - 2))
        assert killed.exitcode == -signal.SIGKILL
        for entry in storage.list(uri):  # what is there is whole
            if entry.path != "manifest.json":
                assert storage.read_bytes(join(uri, entry.path)) == (folder / entry.path).read_bytes()
        complete, partial = stored_bytes(s3, store, uri)
        if read_manifest(storage, uri) is not None:
            assert complete == total
        sent.size_bytes = 0
        assert publish_directory(storage, folder, store.uri, NAME).uri == uri
        assert sent.size_bytes <= total - complete - partial
        continued += partial > 0
        assert download_directory(storage, uri, tmp_path / f"{number}-copy") == manifest_of(folder)
        assert stored_bytes(s3, store, uri) == (total, 0)
    assert continued > kills // 4


@pytest.fixture
def interrupted(s3: S3Server, store: Store, tmp_path: Path) -> Path:
    """A folder of one large file, two of whose parts were sent before the store went away."""
    folder, sent = tmp_path / "folder", list[str]()
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(4 * PART_BYTES))

    def rule(request: Any) -> Answer | None:
        if request.method == "PUT" and "partNumber" in request.target:
            sent.append(request.target)
            return Answer(403, "AccessDenied") if len(sent) > 2 else None
        return None

    with limited(s3, rule) as proxy, pytest.raises(RunFailure) as failure:
        publish_directory(open_storage(store.model_copy(update={"endpoint": proxy.endpoint})), folder, store.uri, NAME)
    assert failure.value.failure is FailureClass.STORAGE_403
    return folder


def test_a_failed_publication_leaves_its_parts_for_the_next(
    s3: S3Server, store: Store, interrupted: Path, tmp_path: Path
) -> None:
    storage, uri = open_storage(store), uri_of(store, interrupted)
    assert stored_bytes(s3, store, uri) == (0, 2 * PART_BYTES)
    sent = Sent(storage, store)
    publish_directory(storage, interrupted, store.uri, NAME)
    assert sent.size_bytes == 2 * PART_BYTES
    assert download_directory(storage, uri, tmp_path / "copy") == manifest_of(interrupted)


def test_parts_of_another_size_are_not_continued(
    s3: S3Server, store: Store, interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_BYTES", PART_BYTES + 1)
    storage, uri = open_storage(store), uri_of(store, interrupted)
    sent = Sent(storage, store)
    publish_directory(storage, interrupted, store.uri, NAME)
    assert sent.size_bytes == 4 * PART_BYTES
    assert download_directory(storage, uri, tmp_path / "copy") == manifest_of(interrupted)
    assert stored_bytes(s3, store, uri) == (4 * PART_BYTES, 0)


def test_a_store_that_does_not_list_uploads_receives_everything(
    s3: S3Server, store: Store, interrupted: Path, tmp_path: Path
) -> None:
    def rule(request: Any) -> Answer | None:
        return Answer(403, "AccessDenied") if request.method == "GET" and "uploads" in request.target else None

    with limited(s3, rule) as proxy:
        storage = open_storage(store.model_copy(update={"endpoint": proxy.endpoint}))
        sent = Sent(storage, store)
        publish_directory(storage, interrupted, store.uri, NAME)
    assert sent.size_bytes == 4 * PART_BYTES
    assert read_manifest(open_storage(store), uri_of(store, interrupted)) == manifest_of(interrupted)


def test_the_deletion_of_a_folder_deletes_its_unfinished_uploads(s3: S3Server, store: Store, interrupted: Path) -> None:
    uri = uri_of(store, interrupted)
    delete_directory(open_storage(store), uri)
    assert stored_bytes(s3, store, uri) == (0, 0)


def test_two_pods_that_publish_the_same_folder_both_succeed(s3: S3Server, store: Store, interrupted: Path) -> None:
    """The upload that this pod continues is completed by another pod before this pod can complete it."""
    storage, other, uri = open_storage(store), open_storage(store), uri_of(store, interrupted)
    completed = []

    def complete_first(request: Any, event_name: str) -> None:
        if event_name.endswith("CompleteMultipartUpload") and not completed:
            completed.append(publish_directory(other, interrupted, store.uri, NAME))

    backend = storage._backend(uri)
    assert isinstance(backend, S3)
    on_requests(backend, complete_first)
    assert publish_directory(storage, interrupted, store.uri, NAME) == completed[0]
    assert stored_bytes(s3, store, uri) == (4 * PART_BYTES, 0)


def test_a_failed_upload_of_an_ordinary_object_leaves_nothing(s3: S3Server, store: Store, tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_bytes(os.urandom(3 * PART_BYTES))

    def rule(request: Any) -> Answer | None:
        return Answer(403, "AccessDenied") if "partNumber=3" in request.target else None

    with limited(s3, rule) as proxy, pytest.raises(RunFailure) as failure:
        open_storage(store.model_copy(update={"endpoint": proxy.endpoint})).upload(source, join(store.uri, "f"))
    assert failure.value.failure is FailureClass.STORAGE_403
    assert stored_bytes(s3, store, store.uri) == (0, 0)


def test_an_object_is_replaced_even_by_one_of_the_same_size(store: Store, tmp_path: Path) -> None:
    storage, uri, source = open_storage(store), join(store.uri, "log"), tmp_path / "log"
    for content in (b"old", b"new"):
        source.write_bytes(content)
        storage.upload(source, uri)
    assert storage.read_bytes(uri) == b"new"
