"""Which files are pictures, by their names."""

from __future__ import annotations

from pathlib import PurePosixPath

PICTURE_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
)
"""Endings of the formats that `pictures.read_picture` reads, in lower case."""


def is_picture(name: str) -> bool:
    """Whether a file name or path has the ending of a picture, in upper or lower case."""
    return PurePosixPath(name).suffix.lower() in PICTURE_ENDINGS
