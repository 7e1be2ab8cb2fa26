"""The sources of the two images, and the tag that is computed from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TAG_LENGTH = 16


@dataclass(frozen=True)
class Image:
    """`sources`: the files and folders, relative to the repository's root, that its Containerfile copies."""

    name: str
    containerfile: str
    sources: tuple[str, ...]


IMAGES = (
    Image(
        name="operator",
        containerfile="operator/Containerfile",
        sources=("locks/operator.txt", "crds/tunesmith_api", "operator/tunesmith_operator"),
    ),
    Image(
        name="runtime",
        containerfile="runtime/Containerfile",
        sources=("locks/runtime.txt", "locks/lmdeploy.txt", "crds/tunesmith_api", "runtime/tunesmith_runtime"),
    ),
)


def source_files(root: Path, image: Image) -> list[Path]:
    """Every file that can change the image, relative to `root` and sorted. Raises FileNotFoundError for a missing source."""
    found: set[Path] = set()
    for name in (".dockerignore", image.containerfile, *image.sources):
        path = root / name
        if not path.exists():
            raise FileNotFoundError(path)
        files = path.rglob("*") if path.is_dir() else [path]
        found.update(file.relative_to(root) for file in files if file.is_file() and "__pycache__" not in file.parts)
    return sorted(found)


def content_tag(root: Path, files: Iterable[Path], base: str) -> str:
    """The tag of an image with these files on this base: equal content has an equal tag, whenever it is built."""
    digest = hashlib.sha256(base.encode())
    for file in files:
        content = hashlib.sha256((root / file).read_bytes()).hexdigest()
        digest.update(f"\0{file.as_posix()}\0{content}".encode())
    return digest.hexdigest()[:TAG_LENGTH]


def reference(registry: str, image: Image, tag: str) -> str:
    return f"{registry}/tunesmith/{image.name}:{tag}"
