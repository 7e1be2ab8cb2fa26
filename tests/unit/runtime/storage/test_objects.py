"""Objects by URI, on a real S3 server and on files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.s3 import S3Server
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Store
from tunesmith_runtime import storage as module
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.storage import Storage, join, open_storage
from tunesmith_runtime.storage.manifest import sha256_of


def test_a_written_object_is_read_listed_and_deleted(store: Store) -> None:
    storage, uri = open_storage(store), join(store.uri, "a/b.json")
    assert storage.write_bytes(uri, b"one")
    assert storage.read_bytes(uri) == b"one"
    entry = storage.stat(uri)
    assert entry is not None
    assert (entry.path, entry.size_bytes) == ("b.json", 3)
    assert [each.path for each in storage.list(store.uri)] == ["a/b.json"]
    storage.delete(uri)
    assert storage.read_bytes(uri) is None
    assert storage.stat(uri) is None
    storage.delete(uri)


def test_a_range_of_an_object_is_read_and_ends_with_the_object(store: Store) -> None:
    storage, uri = open_storage(store), join(store.uri, "a.bin")
    storage.write_bytes(uri, b"0123456789")
    assert storage.read_range(uri, 2, 3) == b"234"
    assert storage.read_range(uri, 8, 100) == b"89"
    with pytest.raises(NotFound):
        storage.read_range(join(store.uri, "b.bin"), 0, 1)


def test_a_folder_does_not_list_a_folder_with_the_same_prefix(store: Store) -> None:
    storage = open_storage(store)
    storage.write_bytes(join(store.uri, "run/x"), b"1")
    storage.write_bytes(join(store.uri, "run-2/y"), b"2")
    assert [each.path for each in storage.list(join(store.uri, "run"))] == ["x"]


def test_an_absent_folder_lists_nothing(store: Store) -> None:
    storage = open_storage(store)
    storage.write_bytes(join(store.uri, "x"), b"1")
    assert storage.list(join(store.uri, "nothing")) == []


def test_a_conditional_write_does_not_overwrite(store: Store) -> None:
    storage, uri = open_storage(store), join(store.uri, "run.json")
    assert storage.write_bytes(uri, b"first", if_absent=True)
    assert not storage.write_bytes(uri, b"second", if_absent=True)
    assert storage.read_bytes(uri) == b"first"


def refusing(storage: Storage, times: int) -> Storage:
    """`storage` whose first conditional writes are refused, as S3 does with 409 where two meet."""
    write, refused = storage.write_bytes, list[str]()

    def conflicting(uri: str, content: bytes, if_absent: bool = False) -> bool:
        if if_absent and len(refused) < times:
            refused.append(uri)
            return False
        return write(uri, content, if_absent)

    storage.write_bytes = conflicting  # type: ignore[method-assign]
    return storage


def test_a_refused_write_of_an_absent_object_is_retried(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.0)
    storage, uri = refusing(open_storage(store), 2), join(store.uri, "run.json")
    assert storage.write_once(uri, b"first") == b"first"
    assert storage.read_bytes(uri) == b"first"
    assert storage.write_once(uri, b"second") == b"first"


def test_a_store_that_refuses_every_write_is_a_failure(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.0)
    storage, uri = refusing(open_storage(store), 1000), join(store.uri, "run.json")
    with pytest.raises(RunFailure, match=r"run\.json: the store refused") as failure:
        storage.write_once(uri, b"first")
    assert failure.value.failure is FailureClass.STORAGE_UNREACHABLE


def test_exactly_one_of_many_concurrent_writers_wins(store: Store) -> None:
    storage, uri, won = open_storage(store), join(store.uri, "claim"), list[int]()

    def write(number: int) -> None:
        if storage.write_bytes(uri, str(number).encode(), if_absent=True):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.read_bytes(uri) == str(won[0]).encode()


def test_a_replacement_needs_the_version_it_replaces(store: Store) -> None:
    storage, uri = open_storage(store), join(store.uri, "claim")
    storage.write_bytes(uri, b"one")
    entry = storage.stat(uri)
    assert entry is not None
    assert storage.replace_bytes(uri, b"two", entry.etag)
    assert not storage.replace_bytes(uri, b"three", entry.etag)
    assert storage.read_bytes(uri) == b"two"
    assert not storage.replace_bytes(join(store.uri, "absent"), b"x", entry.etag)


def test_fingerprints_differ_by_content_and_are_equal_for_copies(store: Store) -> None:
    storage = open_storage(store)
    fingerprints = []
    for name, content in (("a", b"same"), ("b", b"same"), ("c", b"else")):
        uri = join(store.uri, name)
        storage.write_bytes(uri, content)
        entry = storage.stat(uri)
        assert entry is not None
        fingerprints.append(storage.fingerprint(uri, entry))
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


@pytest.mark.parametrize("size", [0, 1, (70 << 20) + 3])
def test_a_downloaded_file_equals_the_uploaded_file(store: Store, tmp_path: Path, size: int) -> None:
    storage, uri, source, target = (
        open_storage(store),
        join(store.uri, "f"),
        tmp_path / "source",
        tmp_path / "in/target",
    )
    source.write_bytes(os.urandom(size))
    storage.upload(source, uri)
    storage.download(uri, target)
    assert target.read_bytes() == source.read_bytes()
    assert [each.name for each in target.parent.iterdir()] == ["target"]


def test_content_is_transferred_over_tls(tls_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in tls_server.environment.items():
        monkeypatch.setenv(name, value)
    store = tls_server.store(tls_server.new_bucket())
    storage, uri, source, target = open_storage(store), join(store.uri, "f"), tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom((70 << 20) + 3))
    storage.upload(source, uri)
    assert storage.download(uri, target) == sha256_of(source)
    assert target.read_bytes() == source.read_bytes()


def test_the_download_of_a_missing_object_names_it(store: Store, tmp_path: Path) -> None:
    storage = open_storage(store)
    storage.write_bytes(join(store.uri, "x"), b"")
    with pytest.raises(NotFound, match=r"nothing at .*/absent"):
        storage.download(join(store.uri, "absent"), tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_an_unknown_scheme_is_refused_with_the_supported_scheme() -> None:
    with pytest.raises(RunFailure, match="gs://bucket/model") as failure:
        open_storage(Store(uri="file:///store")).list("gs://bucket/model")
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert failure.value.hint == "use s3://"


def test_a_broken_download_resumes(s3: S3Server, tmp_path: Path) -> None:
    """Two of three parts are on disk: the recorded part is not downloaded again, the partly recorded part is."""
    from tunesmith_runtime.storage.s3.downloads import PART_BYTES

    store = s3.store(s3.new_bucket())
    storage, uri, source, target = open_storage(store), join(store.uri, "f"), tmp_path / "source", tmp_path / "target"
    content = os.urandom(2 * PART_BYTES + 5)
    source.write_bytes(content)
    storage.upload(source, uri)
    entry = storage.stat(uri)
    assert entry is not None
    marked = b"m" * PART_BYTES
    (tmp_path / "target.incomplete").write_bytes(marked + b"\0" * (PART_BYTES + 5))
    (tmp_path / "target.incomplete-parts").write_text(f"{entry.etag} {entry.size_bytes}\n0\n1")
    storage.download(uri, target)
    assert target.read_bytes() == marked + content[PART_BYTES:]


def test_parts_of_another_version_are_discarded(s3: S3Server, tmp_path: Path) -> None:
    store = s3.store(s3.new_bucket())
    storage, uri, target = open_storage(store), join(store.uri, "f"), tmp_path / "target"
    storage.write_bytes(uri, b"new")
    (tmp_path / "target.incomplete").write_bytes(b"old")
    (tmp_path / "target.incomplete-parts").write_text('"etag-of-old" 3\n0\n')
    storage.download(uri, target)
    assert target.read_bytes() == b"new"


def test_an_object_that_changes_during_its_download_is_reported(s3: S3Server, tmp_path: Path) -> None:
    store = s3.store(s3.new_bucket())
    storage, uri = open_storage(store), join(store.uri, "f")
    storage.write_bytes(uri, b"old")
    seen = storage.stat(uri)
    storage.write_bytes(uri, b"new")
    with pytest.raises(RunFailure, match="changed while it was read") as failure:
        storage.download(uri, tmp_path / "f", seen)
    assert failure.value.failure is FailureClass.STORAGE_CORRUPT
