"""The manifest of a folder: every file with its size and sha256. It is written last and marks the folder as complete."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from tunesmith_api.base import ApiModel
from tunesmith_api.failures import FailureClass
from tunesmith_api.hashing import digest
from tunesmith_runtime.errors import RunFailure

MANIFEST = "manifest.json"
INCOMPLETE = ".incomplete"
"""Suffix of a file that is being transferred."""
FILES_AT_ONCE = 4
"""Files that are transferred or hashed at a time."""


def inside(path: str) -> str:
    """Return `path` if it names a file below its folder. Raises ValueError otherwise."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in path:
        raise ValueError(f"the path {path!r} leads out of its folder")
    return path


class ManifestFile(ApiModel):
    """A file of a folder."""

    path: Annotated[str, AfterValidator(inside)] = Field(description="Path below the folder, with /.")
    size_bytes: int = Field(ge=0, description="Size in bytes.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="sha256 of the content, as hex.")


class Manifest(ApiModel):
    """The files of a folder, sorted by path."""

    files: list[ManifestFile] = Field(description="All files but the manifest.")

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON of `files`; it depends only on the content."""
        return digest([file.to_dict() for file in self.files])

    @property
    def size_bytes(self) -> int:
        """Total size of the files."""
        return sum(file.size_bytes for file in self.files)

    @classmethod
    def parse(cls, content: bytes, uri: str) -> Manifest:
        """Parse `content`, which was read from `uri`. Raises RunFailure (StorageCorrupt)."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise RunFailure(
                FailureClass.STORAGE_CORRUPT, f"{uri} is not a manifest: {error.errors()[0]['msg']}"
            ) from error


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content, as hex."""
    with path.open("rb") as file:
        return sha256_of_file(file)


def sha256_of_file(file: BufferedReader) -> str:
    """Return the sha256 of an open file's content, as hex."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_of(directory: Path) -> Manifest:
    """Return the manifest of a local folder, without manifest.json itself and files that are being transferred.

    Files are hashed several at a time.
    """
    paths = sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and INCOMPLETE not in path.name
    )

    def describe(path: str) -> ManifestFile:
        file = directory / path
        return ManifestFile(path=path, size_bytes=file.stat().st_size, sha256=sha256_of(file))

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return Manifest(files=list(pool.map(describe, (path for path in paths if path != MANIFEST))))
