"""Folders: an incomplete folder is never read as complete, and a download equals its upload."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.s3 import S3Server
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Store
from tunesmith_runtime.errors import NotFound, RunFailure, StopRequested
from tunesmith_runtime.storage import Entry, Storage, join, open_storage
from tunesmith_runtime.storage import directory as directory_module
from tunesmith_runtime.storage import manifest as manifest_module
from tunesmith_runtime.storage.directory import (
    delete_directory,
    download_directory,
    publish_directory,
    read_manifest,
    upload_directory,
)
from tunesmith_runtime.storage.manifest import Manifest, manifest_of, sha256_of

Tree = dict[str, bytes]
NAMES = st.from_regex(r"[a-z0-9_]{1,8}", fullmatch=True)
TREES: st.SearchStrategy[Tree] = st.dictionaries(
    st.tuples(NAMES, NAMES).map(lambda parts: f"d{parts[0]}/{parts[1]}") | NAMES.map(lambda name: f"f{name}"),
    st.binary(max_size=64),
    min_size=1,
    max_size=6,
)


def write(directory: Path, tree: Tree) -> Path:
    for path, content in tree.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    return directory


def read(directory: Path) -> Tree:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.fixture
def storage(store: Store) -> Storage:
    return open_storage(store)


def test_a_downloaded_folder_equals_the_uploaded_folder(storage: Storage, store: Store, tmp_path: Path) -> None:
    tree = {"config.json": b"{}", "sub/weights": b"w" * 1000, "empty": b""}
    manifest = upload_directory(storage, write(tmp_path / "a", tree), store.uri)
    assert download_directory(storage, store.uri, tmp_path / "b") == manifest
    assert {path: content for path, content in read(tmp_path / "b").items() if path != "manifest.json"} == tree
    assert read_manifest(storage, store.uri) == manifest


def test_an_incomplete_upload_has_no_manifest(storage: Storage, store: Store, tmp_path: Path) -> None:
    """The second file of the upload fails: there is no manifest, so no reader knows the folder as whole."""
    directory = write(tmp_path / "a", {"1": b"1", "2": b"2"})
    upload = storage.upload

    def broken(path: Path, uri: str, is_addressed: bool) -> None:
        if uri.endswith("/2"):
            raise RunFailure(FailureClass.STORAGE_UNREACHABLE, "gone")
        upload(path, uri, is_addressed)

    storage.upload = broken  # type: ignore[method-assign]
    with pytest.raises(RunFailure, match="gone"):
        upload_directory(storage, directory, store.uri)
    assert read_manifest(storage, store.uri) is None


def test_a_repeated_upload_sends_nothing(storage: Storage, store: Store, tmp_path: Path) -> None:
    directory = write(tmp_path / "a", {"1": b"1"})
    first = upload_directory(storage, directory, store.uri)
    storage.upload = lambda path, uri, is_addressed: pytest.fail(f"sent {uri}")  # type: ignore[method-assign]
    assert upload_directory(storage, directory, store.uri) == first


def test_a_truncated_object_is_reported_before_its_download(storage: Storage, store: Store, tmp_path: Path) -> None:
    upload_directory(storage, write(tmp_path / "a", {"weights": b"12345"}), store.uri)
    storage.write_bytes(join(store.uri, "weights"), b"123")
    with pytest.raises(RunFailure, match="weights has 3 bytes, its manifest lists 5") as failure:
        download_directory(storage, store.uri, tmp_path / "b")
    assert failure.value.failure is FailureClass.STORAGE_CORRUPT


def test_a_corrupt_object_is_reported_and_not_kept(storage: Storage, store: Store, tmp_path: Path) -> None:
    upload_directory(storage, write(tmp_path / "a", {"weights": b"12345"}), store.uri)
    storage.write_bytes(join(store.uri, "weights"), b"12346")
    with pytest.raises(RunFailure, match="weights does not match the sha256") as failure:
        download_directory(storage, store.uri, tmp_path / "b")
    assert failure.value.failure is FailureClass.STORAGE_CORRUPT
    assert not (tmp_path / "b" / "manifest.json").exists()


def test_a_stop_does_not_wait_for_transfers(storage: Storage, store: Store, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"1": b"1", "2": b"2", "3": b"3"})
    under_way, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def upload(path: Path, uri: str, is_addressed: bool) -> None:
        if path.name == "1":
            assert under_way.wait(60)
            raise StopRequested
        under_way.set()
        go_on.wait(10)
        ended.set()

    storage.upload = upload  # type: ignore[method-assign]
    with pytest.raises(StopRequested):
        upload_directory(storage, folder, store.uri)
    assert not ended.is_set()
    assert read_manifest(storage, store.uri) is None
    go_on.set()


def test_a_missing_object_is_named(storage: Storage, store: Store, tmp_path: Path) -> None:
    upload_directory(storage, write(tmp_path / "a", {"1": b"1", "2": b"2"}), store.uri)
    storage.delete(join(store.uri, "2"))
    with pytest.raises(RunFailure, match="/2 is missing"):
        download_directory(storage, store.uri, tmp_path / "b")


def test_verified_files_are_kept_and_others_removed(storage: Storage, store: Store, tmp_path: Path) -> None:
    upload_directory(storage, write(tmp_path / "a", {"good": b"good", "bad": b"bad"}), store.uri)
    target = write(tmp_path / "b", {"good": b"good", "bad": b"BAD", "old/stranger": b"x"})
    fetched, download = [], storage.download

    def counted(uri: str, path: Path, entry: Entry | None = None) -> str:
        fetched.append(path.name)
        return download(uri, path, entry)

    storage.download = counted  # type: ignore[method-assign]
    download_directory(storage, store.uri, target)
    assert fetched == ["bad"]
    assert set(read(target)) == {"good", "bad", "manifest.json"}


def test_a_folder_without_a_manifest_is_downloaded_as_it_is_but_for_excluded_files(
    storage: Storage, store: Store, tmp_path: Path
) -> None:
    for name in ("a.safetensors", "b.bin"):
        storage.write_bytes(join(store.uri, name), name.encode())
    manifest = download_directory(storage, store.uri, tmp_path / "b", keep=lambda path: not path.endswith(".bin"))
    assert [file.path for file in manifest.files] == ["a.safetensors"]
    assert manifest == manifest_of(tmp_path / "b")


def test_a_users_manifest_json_is_an_ordinary_file(storage: Storage, store: Store, tmp_path: Path) -> None:
    storage.write_bytes(join(store.uri, "manifest.json"), b'{"version": 3}')
    storage.write_bytes(join(store.uri, "x"), b"x")
    assert read_manifest(storage, store.uri) is None
    assert [file.path for file in download_directory(storage, store.uri, tmp_path / "b").files] == ["x"]


def test_an_empty_folder_is_not_found(storage: Storage, store: Store, tmp_path: Path) -> None:
    storage.write_bytes(join(store.uri, "x"), b"")
    with pytest.raises(NotFound):
        download_directory(storage, join(store.uri, "nothing"), tmp_path / "b")


def test_a_published_folder_is_named_by_its_content(storage: Storage, store: Store, tmp_path: Path) -> None:
    first = publish_directory(storage, write(tmp_path / "1", {"w": b"1"}), store.uri, "merged")
    two = publish_directory(storage, write(tmp_path / "2", {"w": b"2"}), store.uri, "merged")
    again = publish_directory(storage, write(tmp_path / "3", {"w": b"1"}), store.uri, "merged")
    assert first == again
    assert first.uri != two.uri
    assert first.uri.startswith(join(store.uri, "merged-"))
    assert first.digest == manifest_of(tmp_path / "1").digest


def test_a_file_that_an_interrupted_publication_left_is_not_sent_again(
    storage: Storage, store: Store, tmp_path: Path
) -> None:
    folder = write(tmp_path / "a", {"1": b"1", "2": b"22"})
    uri = publish_directory(storage, folder, store.uri, "merged").uri
    storage.delete(join(uri, "manifest.json"))
    storage.delete(join(uri, "2"))
    sent, upload = [], storage.upload

    def counted(path: Path, uri: str, is_addressed: bool = False) -> None:
        sent.append(path.name)
        upload(path, uri, is_addressed)

    storage.upload = counted  # type: ignore[method-assign]
    assert publish_directory(storage, folder, store.uri, "merged").uri == uri
    assert sent == ["2"]
    assert download_directory(storage, uri, tmp_path / "b") == manifest_of(folder)


def test_a_file_of_another_size_is_sent_again(storage: Storage, store: Store, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"1": b"1", "2": b"22"})
    uri = publish_directory(storage, folder, store.uri, "merged").uri
    storage.delete(join(uri, "manifest.json"))
    storage.write_bytes(join(uri, "1"), b"damaged")
    publish_directory(storage, folder, store.uri, "merged")
    assert download_directory(storage, uri, tmp_path / "b") == manifest_of(folder)


def test_a_file_in_a_folder_that_is_not_named_by_its_content_is_sent_again(
    storage: Storage, store: Store, tmp_path: Path
) -> None:
    """A file of the same size may have other content there."""
    upload_directory(storage, write(tmp_path / "a", {"1": b"old"}), store.uri)
    upload_directory(storage, write(tmp_path / "a", {"1": b"new"}), store.uri)
    assert storage.read_bytes(join(store.uri, "1")) == b"new"


def test_an_object_whose_key_leads_out_of_the_folder_is_refused(s3: S3Server, tmp_path: Path) -> None:
    store = s3.store(s3.new_bucket())
    storage = open_storage(store)
    storage.write_bytes(join(store.uri, "x"), b"x")
    entries = [*storage.list(store.uri), Entry("../outside", 1, '"e"')]
    storage.list = lambda uri: entries  # type: ignore[method-assign]
    with pytest.raises(RunFailure, match=r"'\.\./outside' leads out of its folder") as failure:
        download_directory(storage, store.uri, tmp_path / "b")
    assert failure.value.failure is FailureClass.STORAGE_CORRUPT
    assert not (tmp_path / "outside").exists()


def test_a_folder_is_read_once_to_be_published(storage: Storage, store: Store, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"1": b"1", "2": b"2"})
    with pytest.MonkeyPatch.context() as patch:
        hashed = []
        patch.setattr(manifest_module, "sha256_of", lambda path: hashed.append(path.name) or sha256_of(path))
        publish_directory(storage, folder, store.uri, "merged")
    assert sorted(hashed) == ["1", "2"]


def test_a_download_is_not_read_again_to_be_verified(storage: Storage, store: Store, tmp_path: Path) -> None:
    uri = publish_directory(storage, write(tmp_path / "a", {"1": b"1"}), store.uri, "merged").uri
    with pytest.MonkeyPatch.context() as patch:
        for module in (directory_module, manifest_module):
            patch.setattr(module, "sha256_of", lambda path: pytest.fail(f"read {path}"))
        download_directory(storage, uri, tmp_path / "b")
    assert (tmp_path / "b" / "1").read_bytes() == b"1"


def test_a_deleted_folder_loses_its_manifest_first(storage: Storage, store: Store, tmp_path: Path) -> None:
    upload_directory(storage, write(tmp_path / "a", {"1": b"1", "z": b"z"}), store.uri)
    deleted, delete = [], storage.delete

    def noted(uri: str) -> None:
        deleted.append(uri.rsplit("/", 1)[1])
        delete(uri)

    storage.delete = noted  # type: ignore[method-assign]
    delete_directory(storage, store.uri)
    assert deleted == ["manifest.json", "1", "z"]
    assert storage.list(store.uri) == []


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", ""])
def test_a_manifest_cannot_reach_outside_its_folder(path: str) -> None:
    content = json.dumps({"files": [{"path": path, "sizeBytes": 0, "sha256": "0" * 64}]}).encode()
    with pytest.raises(RunFailure, match="not a manifest") as failure:
        Manifest.parse(content, "s3://b/manifest.json")
    assert failure.value.failure is FailureClass.STORAGE_CORRUPT


@given(tree=TREES)
def test_any_folder_survives_upload_and_download(tree: Tree) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        storage, uri = open_storage(Store(uri=f"file://{root}/store")), f"file://{root}/store/x"
        manifest = upload_directory(storage, write(root / "a", tree), uri)
        assert download_directory(storage, uri, root / "b") == manifest
        assert {path: content for path, content in read(root / "b").items() if path != "manifest.json"} == tree


@given(first=TREES, second=TREES)
def test_digests_are_equal_if_and_only_if_the_content_is(first: Tree, second: Tree) -> None:
    with tempfile.TemporaryDirectory() as folder:
        digests = [manifest_of(write(Path(folder) / name, tree)).digest for name, tree in (("1", first), ("2", second))]
        assert (digests[0] == digests[1]) == (first == second)


@given(tree=TREES, data=st.data())
def test_any_damage_to_a_stored_file_is_found(tree: Tree, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(sorted(tree)))
    damaged = data.draw(st.binary(max_size=64).filter(lambda content: content != tree[victim]))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        storage, uri = open_storage(Store(uri=f"file://{root}/store")), f"file://{root}/store/x"
        upload_directory(storage, write(root / "a", tree), uri)
        storage.write_bytes(join(uri, victim), damaged)
        with pytest.raises(RunFailure) as failure:
            download_directory(storage, uri, root / "b")
        assert failure.value.failure is FailureClass.STORAGE_CORRUPT
