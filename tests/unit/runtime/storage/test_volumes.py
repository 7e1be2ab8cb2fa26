"""pvc://: files in mounted volumes are read, and nothing outside them."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.storage.volumes import Volumes


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """The volume of claim `models`, with a file outside it."""
    (tmp_path / "volumes" / "models" / "base").mkdir(parents=True)
    (tmp_path / "secret").write_text("a credential")
    (tmp_path / "volumes" / "models" / "base" / "config.json").write_text("{}")
    return tmp_path / "volumes" / "models"


@pytest.fixture
def volumes(volume: Path) -> Volumes:
    return Volumes(volume.parent)


def test_a_folder_is_listed_and_its_files_are_read(volumes: Volumes, volume: Path, tmp_path: Path) -> None:
    (volume / "base" / "deep").mkdir()
    (volume / "base" / "deep" / "a.txt").write_text("text")
    entries = volumes.list("pvc://models/base")
    assert [(entry.path, entry.size_bytes) for entry in entries] == [("config.json", 2), ("deep/a.txt", 4)]
    uri = "pvc://models/base/deep/a.txt"
    entry = volumes.stat(uri)
    assert entry is not None
    assert (entry.path, entry.etag) == ("a.txt", entries[1].etag)
    assert volumes.read_bytes(uri) == b"text"
    assert volumes.fingerprint(uri, entry) == hashlib.sha256(b"text").hexdigest()
    volumes.download(uri, tmp_path / "work" / "copy.txt", entry)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["copy.txt"]
    assert (tmp_path / "work" / "copy.txt").read_text() == "text"


@pytest.mark.parametrize("uri", ["pvc://models/none", "pvc://models/base/config.json/none"])
def test_what_is_absent_is_not_found(volumes: Volumes, uri: str) -> None:
    assert volumes.stat(uri) is None
    assert volumes.list(uri) == []
    assert volumes.read_bytes(uri) is None


def test_the_whole_volume_is_listed_without_what_its_file_system_keeps(volumes: Volumes, volume: Path) -> None:
    for name in ("lost+found", ".snapshot"):
        (volume / name).mkdir()
        (volume / name / "old").write_text("x")
    assert [entry.path for entry in volumes.list("pvc://models")] == ["base/config.json"]


def test_a_claim_that_is_not_mounted_is_named_with_the_remedy(volumes: Volumes) -> None:
    with pytest.raises(RunFailure, match="no volume of PersistentVolumeClaim 'data' is mounted") as failure:
        volumes.list("pvc://data/rows.jsonl")
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert "write the pvc:// URI into the spec" in (failure.value.hint or "")


def test_links_within_a_volume_are_followed(volumes: Volumes, volume: Path) -> None:
    """As in the cache folder of huggingface_hub: snapshots link to blobs."""
    (volume / "blobs").mkdir()
    (volume / "blobs" / "abc").write_text("weights")
    (volume / "snapshot").mkdir()
    (volume / "snapshot" / "model.safetensors").symlink_to("../blobs/abc")
    (volume / "latest").symlink_to("snapshot")
    assert [entry.path for entry in volumes.list("pvc://models/latest")] == ["model.safetensors"]
    assert volumes.read_bytes("pvc://models/latest/model.safetensors") == b"weights"


WAYS_OUT: dict[str, Callable[[Volumes, str], object]] = {
    "stat": lambda volumes, uri: volumes.stat(uri),
    "read_bytes": lambda volumes, uri: volumes.read_bytes(uri),
    "list of the folder": lambda volumes, uri: volumes.list(uri.rpartition("/")[0]),
}


@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("target", ["../../../secret", "{tmp}/secret", "/proc/self/environ"])
def test_a_link_that_leads_out_is_refused(
    volumes: Volumes, volume: Path, tmp_path: Path, way: str, target: str
) -> None:
    (volume / "base" / "rows.jsonl").symlink_to(target.format(tmp=tmp_path))
    with pytest.raises(RunFailure, match="is not in the volume of its claim") as failure:
        WAYS_OUT[way](volumes, "pvc://models/base/rows.jsonl")
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert "copy the file into the volume" in (failure.value.hint or "")


def test_a_folder_that_links_out_is_refused(volumes: Volumes, volume: Path) -> None:
    (volume / "all").symlink_to("/")
    for uri in ("pvc://models/all", "pvc://models/all/etc/passwd", "pvc://models"):
        with pytest.raises(RunFailure, match="is not in the volume of its claim"):
            volumes.list(uri) or volumes.read_bytes(uri)


@given(parts=st.lists(st.sampled_from(["..", ".", "base", "models", "", "secret", "config.json"]), max_size=6))
def test_no_path_reads_a_file_outside_its_volume(parts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "paths"
    (folder / "volumes" / "models" / "base").mkdir(parents=True, exist_ok=True)
    for outside in (folder / "secret", folder / "volumes" / "secret"):
        outside.write_text("a credential")
    try:
        content = Volumes(folder / "volumes").read_bytes("pvc://" + "/".join(["models", *parts]))
    except RunFailure:
        return
    assert content is None


def test_a_folder_that_contains_itself_is_refused(volumes: Volumes, volume: Path) -> None:
    (volume / "base" / "again").symlink_to("..")
    with pytest.raises(RunFailure, match="contains a link to itself"):
        volumes.list("pvc://models/base")


def test_links_that_double_the_paths_at_each_level_are_refused_in_bounded_time(volumes: Volumes, volume: Path) -> None:
    """Without the bound, 2^40 folders would be listed."""
    for level in range(40):
        (volume / "deep" / str(level)).mkdir(parents=True)
        for name in ("a", "b"):
            (volume / "deep" / str(level) / name).symlink_to(f"../{level + 1}")
    (volume / "deep" / "40").mkdir()
    with pytest.raises(RunFailure, match=r"links lead to the folder deep/\d+ by more than 100 paths") as failure:
        volumes.list("pvc://models/deep/0")
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert str(failure.value.hint).startswith("name deep/")


def test_a_link_in_a_circle_is_an_error_of_the_volume(volumes: Volumes, volume: Path) -> None:
    (volume / "base" / "x").symlink_to("x")
    with pytest.raises(RunFailure) as failure:
        volumes.list("pvc://models/base")
    assert failure.value.failure is FailureClass.STORAGE_UNREACHABLE


def test_a_named_pipe_is_no_file_and_nobody_waits_for_its_writer(volumes: Volumes, volume: Path) -> None:
    os.mkfifo(volume / "base" / "rows.jsonl")
    assert [entry.path for entry in volumes.list("pvc://models/base")] == ["config.json"]
    reader = threading.Thread(target=volumes.read_bytes, args=["pvc://models/base/rows.jsonl"], daemon=True)
    reader.start()
    reader.join(10)
    assert not reader.is_alive()


def test_a_file_that_changes_while_it_is_read_is_refused(volumes: Volumes, volume: Path, tmp_path: Path) -> None:
    uri = "pvc://models/base/config.json"
    entry = volumes.stat(uri)
    assert entry is not None
    (volume / "base" / "config.json").write_text("{ }")
    for read in (
        lambda: volumes.fingerprint(uri, entry),
        lambda: volumes.download(uri, tmp_path / "copy", entry),
    ):
        with pytest.raises(RunFailure, match="changed while it was read") as failure:
            read()
        assert failure.value.failure is FailureClass.STORAGE_CORRUPT
    assert not (tmp_path / "copy").exists()


def test_a_file_that_the_pods_user_may_not_read_is_storage403(volumes: Volumes, volume: Path) -> None:
    """The child process drops root's rights, as the tests may run as root."""
    secret = volume / "base" / "config.json"
    secret.chmod(0)
    for folder in (volume, *volume.parents):
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    found = _as_nobody(lambda: volumes.read_bytes("pvc://models/base/config.json"))
    assert found.startswith("Storage403 pvc://models/base/config.json"), found
    assert "Permission denied" in found
    assert "chmod -R a+rX" in found


def _as_nobody(work: Callable[[], object]) -> str:
    """Class, message and hint of the failure of `work` in a process of user 65532, or of this user unless it is root."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setgid(65532)
            os.setuid(65532)
        try:
            work()
        except RunFailure as failure:
            os.write(writing, f"{failure.failure} {failure.message} {failure.hint}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.parametrize("write", ["write_bytes", "replace_bytes", "upload", "discard_uploads", "delete", "probe"])
def test_nothing_is_written_to_a_volume(volumes: Volumes, volume: Path, tmp_path: Path, write: str) -> None:
    uri = "pvc://models/base/config.json"
    arguments = {
        "write_bytes": (uri, b"x", False),
        "replace_bytes": (uri, b"x", "etag"),
        "upload": (tmp_path / "secret", uri, False),
        "discard_uploads": (uri,),
        "delete": (uri,),
        "probe": (uri,),
    }[write]
    with pytest.raises(RunFailure, match="mounted read-only"):
        getattr(volumes, write)(*arguments)
    assert (volume / "base" / "config.json").read_text() == "{}"


def test_a_folder_is_not_a_file(volumes: Volumes) -> None:
    assert volumes.stat("pvc://models/base") is None
    assert volumes.read_bytes("pvc://models/base") is None
    with pytest.raises(NotFound):
        volumes.fingerprint("pvc://models/base", volumes.list("pvc://models/base")[0])
