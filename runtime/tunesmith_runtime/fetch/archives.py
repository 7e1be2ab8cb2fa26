"""Archives of models: .tar.gz, .tar.zst and .zip. Only the files of a model are unpacked.

An archive is not trusted: a path that leads out of the folder, a link, a device, too many files, and a content that is much
larger than the archive are refused. Nothing is written beyond the free space of the disk.
"""

from __future__ import annotations

import errno
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import IO, Self, cast

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage.files import disk_failures
from tunesmith_runtime.storage.manifest import inside

WANTED = ("*.safetensors", "*.gguf", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
ARCHIVES = (".tar.gz", ".tgz", ".tar.zst", ".zip")
CONTENT = ".content"
"""Folder beside the archive into which it is unpacked. No unpacked file has a hidden name."""
MEMBERS = 10_000
RATIO = 20
"""How many times larger than the archive its content may be. Weights compress to a half at most."""
DIRECTORY_BYTES = MEMBERS * 512
"""Largest directory of a zip file: zipfile reads it into memory as a whole, before the members can be counted."""
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Methods that zipfile decompresses in blocks of bounded size."""
SLACK_BYTES = 64 << 20
"""Content that any archive may have: tokenizers compress well."""
EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
"""Types of tar's headers that describe the next member. tarfile reads them into memory as a whole."""
EXTENSION_BYTES = 1 << 20
BLOCK_BYTES = 1 << 20
BAD_NAMES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL)
"""Errors of names that contradict each other, such as a file that is a folder as well, or that no disk has."""
UPLOAD = "upload the model's folder to object storage and name its s3:// URI in spec.model.uri"


def unpack(uri: str, archive: Path, directory: Path) -> None:
    """Replace an archive in `directory` by the files of its model, without the folder that they have in common.

    Raises RunFailure (BadModel, DiskFull) that names `uri`.
    """
    limit = archive.stat().st_size * RATIO + SLACK_BYTES
    content = directory / CONTENT
    with disk_failures(directory), _failures(uri):
        content.mkdir()
        members = _zip_members if archive.name.endswith(".zip") else _tar_members
        size = sum(_write(uri, path, stream, content, limit) for path, stream in members(uri, archive, limit))
        if not size:
            raise _bad(uri, f"the archive has no file of a model ({', '.join(WANTED)})")
        archive.unlink()
        _lift(content, directory)


def _write(uri: str, path: str, content: IO[bytes], directory: Path, limit: int) -> int:
    target = directory / path
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with target.open("wb") as file:
        while block := content.read(BLOCK_BYTES):
            written += len(block)
            if written > limit:
                raise _too_large(uri, limit)
            if len(block) > shutil.disk_usage(directory).free:
                raise RunFailure(FailureClass.DISK_FULL, f"{uri}: {path}: the disk is full after {written} bytes")
            file.write(block)
    return written


def _zip_members(uri: str, archive: Path, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    with _ZipFile(archive) as file, zipfile.ZipFile(file) as opened:
        infos = opened.infolist()
        _check_size(uri, ((info.filename, info.file_size) for info in infos), limit)
        for info in infos:
            if (info.external_attr >> 16) & 0o170000 == 0o120000:
                raise _bad(uri, f"{info.filename!r} is a link")
            if info.compress_type not in ZIP_METHODS:
                raise _bad(uri, f"{info.filename!r} is compressed by a method other than deflate")
            if not info.is_dir() and _is_wanted(_checked(uri, info.filename)):
                with opened.open(info) as content:
                    yield info.filename, content


class _ZipFile(FileIO):
    """A zip file that reads its directory only up to the allowed size."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY_BYTES:
            raise ValueError(f"its directory has {size} bytes, and {DIRECTORY_BYTES} at most are read")
        return super().read(size)


def _tar_members(uri: str, archive: Path, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    """Members in the order of the stream: their sizes add up to what was decompressed, also of those that are left out."""
    with (
        _decompressed(archive) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as opened,
    ):
        total = 0
        for number, info in enumerate(opened):
            total += info.size
            if number >= MEMBERS or total > limit:
                raise _too_large(uri, limit)
            path = _checked(uri, info.name) if not info.isdir() else info.name
            if not info.isdir() and not info.isreg():
                raise _bad(uri, f"{info.name!r} is a link or a device")
            if info.isreg() and _is_wanted(path) and (content := opened.extractfile(info)):
                yield path, content


class _Header(tarfile.TarInfo):
    """A header that is valid, and that fits in memory. tarfile takes a damaged one for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            info = super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise ValueError(f"a header of the tar file is damaged: {error}") from error
        if info.size < 0 or (info.type in EXTENSIONS and info.size > EXTENSION_BYTES):
            raise ValueError(f"a header of the tar file states a size of {info.size} bytes")
        return info


@contextmanager
def _decompressed(archive: Path) -> Iterator[IO[bytes]]:
    if not archive.name.endswith(".zst"):
        import gzip

        with gzip.open(archive) as stream:
            yield cast(IO[bytes], stream)
        return
    import pyarrow  # takes most of a second

    with pyarrow.CompressedInputStream(pyarrow.OSFile(str(archive)), "zstd") as stream:
        yield stream


def _check_size(uri: str, members: Iterable[tuple[str, int]], limit: int) -> None:
    sizes = [size for _, size in members]
    if len(sizes) > MEMBERS or sum(sizes) > limit:
        raise _too_large(uri, limit)


def _checked(uri: str, path: str) -> str:
    try:
        return inside(path)
    except ValueError as error:
        raise _bad(uri, str(error)) from error


def _is_wanted(path: str) -> bool:
    """Whether a file belongs to a model and is not hidden, as the files of macOS archivers are."""
    pure = PurePosixPath(path)
    return not any(part.startswith((".", "__MACOSX")) for part in pure.parts) and any(
        fnmatchcase(pure.name, pattern) for pattern in WANTED
    )


def _lift(content: Path, directory: Path) -> None:
    """Move the files in `content`, or in its only folder, into `directory`."""
    top = content
    while len(entries := list(top.iterdir())) == 1 and entries[0].is_dir():
        (top,) = entries
    for entry in list(top.iterdir()):
        entry.rename(directory / entry.name)
    shutil.rmtree(content)


@contextmanager
def _failures(uri: str) -> Iterator[None]:
    try:
        yield
    except RunFailure:
        raise
    except OSError as error:
        if error.errno is None:  # gzip's and zstd's errors
            raise _unreadable(uri, error) from error
        if error.errno in BAD_NAMES:
            raise _bad(uri, f"a file of the archive cannot be written: {error.strerror}") from error
        raise
    except Exception as error:  # the readers raise any exception on unexpected content
        raise _unreadable(uri, error) from error


def _unreadable(uri: str, error: Exception) -> RunFailure:
    return _bad(uri, f"the archive cannot be read: {type(error).__name__}: {error}")


def _too_large(uri: str, limit: int) -> RunFailure:
    return _bad(
        uri, f"the archive has more than {MEMBERS} files, or more than {limit / 1e9:.1f} GB ({RATIO} times its size)"
    )


def _bad(uri: str, sentence: str) -> RunFailure:
    return RunFailure(FailureClass.BAD_MODEL, f"{uri}: {sentence}", UPLOAD)
