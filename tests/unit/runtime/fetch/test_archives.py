"""Archives of models: what is unpacked, and what is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.runtime.fetch.support import MODEL, names
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch import archives
from tunesmith_runtime.fetch.archives import unpack

URI = "https://host/model"
Files = Mapping[str, bytes]


def as_tar(files: Files, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def as_zst(files: Files) -> bytes:
    return bytes(pyarrow.Codec("zstd").compress(as_tar(files, "w"), asbytes=True))


def as_zip(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return buffer.getvalue()


FORMS: dict[str, Callable[[Files], bytes]] = {".tar.gz": as_tar, ".tgz": as_tar, ".tar.zst": as_zst, ".zip": as_zip}


def unpacked(folder: Path, suffix: str, content: bytes) -> dict[str, bytes]:
    """The files of an archive with that content."""
    folder.mkdir(exist_ok=True)
    archive = folder / f"model{suffix}"
    archive.write_bytes(content)
    unpack(f"{URI}{suffix}", archive, folder)
    return {path: (folder / path).read_bytes() for path in names(folder)}


def refusal(folder: Path, suffix: str, content: bytes) -> RunFailure:
    """The failure of an archive that is refused."""
    with pytest.raises(RunFailure) as caught:
        unpacked(folder, suffix, content)
    assert caught.value.failure is FailureClass.BAD_MODEL, caught.value
    assert f"{URI}{suffix}: " in caught.value.message
    return caught.value


@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize("top", ["", "model-1.0/", "./a/b/"])
def test_the_files_of_a_model_are_unpacked_without_their_common_folder(tmp_path: Path, suffix: str, top: str) -> None:
    extras = {"modeling.py": b"print()", "pytorch_model.bin": b"pickle", "._config.json": b"mac", "README.md": b"#"}
    files = {f"{top}{path}": content for path, content in {**MODEL, **extras}.items()}
    assert unpacked(tmp_path / "model", suffix, FORMS[suffix](files)) == MODEL


@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize("path", ["../config.json", "/etc/config.json", "a/../../config.json"])
def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path: Path, suffix: str, path: str) -> None:
    assert "leads out" in refusal(tmp_path / "model", suffix, FORMS[suffix]({path: b"{}"})).message
    assert names(tmp_path) == {f"model/model{suffix}"}


@pytest.mark.parametrize("suffix", FORMS)
def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "SLACK_BYTES", 1000)
    bomb = FORMS[suffix]({"config.json": b"{}", "model.safetensors": bytes(10_000_000)})
    assert "20 times its size" in refusal(tmp_path / "model", suffix, bomb).message
    written = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    assert written <= 20 * len(bomb) + 1000


@pytest.mark.parametrize("suffix", FORMS)
def test_an_archive_with_too_many_files_is_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MEMBERS", 3)
    assert "more than 3 files" in refusal(tmp_path / "model", suffix, FORMS[suffix](MODEL)).message


def test_a_large_directory_of_a_zip_file_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = as_zip(MODEL)
    size = len(whole) - 22 - whole.index(b"PK\x01\x02")  # between the members and the end record
    monkeypatch.setattr(archives, "DIRECTORY_BYTES", size - 1)
    assert f"its directory has {size} bytes" in refusal(tmp_path / "model", ".zip", whole).message


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_file_whose_members_are_not_decompressed_in_blocks_is_refused(tmp_path: Path, method: int) -> None:
    """A block of 1 MB of theirs may be gigabytes, and zipfile decompresses it as a whole."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("config.json", bytes(1000))
    message = refusal(tmp_path / "model", ".zip", buffer.getvalue()).message
    assert "'config.json' is compressed by a method other than deflate" in message


@pytest.mark.parametrize("damage", ["a changed byte", "a cut"])
def test_a_damaged_header_of_a_tar_file_is_not_its_end(tmp_path: Path, damage: str) -> None:
    content = bytearray(as_tar({"config.json": b"{}", "model.safetensors": b"weights"}, "w"))
    content[1024 + 10] ^= 1  # a content of up to 512 bytes lies between two headers
    whole = bytes(content if damage == "a changed byte" else content[: 1024 + 200])
    assert "header of the tar file is damaged" in refusal(tmp_path / "model", ".tar.gz", gzip.compress(whole)).message


@pytest.mark.parametrize("kind", archives.EXTENSIONS)
def test_a_long_header_of_a_tar_file_is_not_read_into_memory(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("config.json")
    info.type, info.size = kind, 1 << 40
    content = gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + as_tar(MODEL, "w"))
    assert f"states a size of {1 << 40} bytes" in refusal(tmp_path / "model", ".tar.gz", content).message


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            info = tarfile.TarInfo("config.json")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        assert "link or a device" in refusal(tmp_path / kind.decode(), ".tar.gz", buffer.getvalue()).message
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        entry = zipfile.ZipInfo("config.json")
        entry.external_attr = 0o120777 << 16
        zipped.writestr(entry, "/etc/passwd")
    assert "is a link" in refusal(tmp_path / "zip", ".zip", buffer.getvalue()).message


@pytest.mark.parametrize("suffix", FORMS)
def test_a_file_that_is_no_archive_or_is_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    whole = FORMS[suffix](MODEL)
    assert "cannot be read" in refusal(tmp_path / "1", suffix, b"<html>not here</html>").message
    assert "cannot be read" in refusal(tmp_path / "2", suffix, whole[: len(whole) // 2]).message


@pytest.mark.parametrize("suffix", FORMS)
def test_an_archive_without_a_model_is_refused(tmp_path: Path, suffix: str) -> None:
    assert "no file of a model" in refusal(tmp_path / "1", suffix, FORMS[suffix]({"a.py": b"print()"})).message


def test_a_name_that_is_a_file_and_a_folder_is_refused(tmp_path: Path) -> None:
    assert (
        "cannot be written"
        in refusal(tmp_path / "1", ".zip", as_zip({"a.json": b"{}", "a.json/b.json": b"{}"})).message
    )


@given(suffix=st.sampled_from(list(FORMS)), start=st.integers(0, 400), noise=st.binary(max_size=200))
def test_a_damaged_archive_is_refused_or_unpacked_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, start: int, noise: bytes
) -> None:
    whole = bytearray(FORMS[suffix](MODEL))
    whole[start : start + len(noise)] = noise
    folder = tmp_path_factory.mktemp("archive")
    with suppress(RunFailure):  # whose class every other test checks
        unpacked(folder / "model", suffix, bytes(whole))
    assert [path.name for path in folder.iterdir()] == ["model"]
