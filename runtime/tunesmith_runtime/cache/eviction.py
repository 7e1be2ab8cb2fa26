"""Which files leave the cache, so that others fit: the least recently used that no pod uses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Blob:
    """A file of the cache."""

    sha256: str
    size_bytes: int
    used_at: float
    """When a pod last fetched it, in seconds since the epoch."""


def choose_evictions(
    blobs: Collection[Blob], leased: Mapping[str, int], limit_bytes: int | None, free_bytes: int
) -> list[Blob] | None:
    """Return the files to evict, so that all `leased` files (sha256 -> size) fit; None if they do not fit in any case.

    `limit_bytes` bounds the size of the cache, and `free_bytes` what may still be written to its disk.
    """
    present = {blob.sha256 for blob in blobs}
    growth = sum(size for sha256, size in leased.items() if sha256 not in present)
    size = sum(blob.size_bytes for blob in blobs) + growth
    excess = max(growth - free_bytes, 0 if limit_bytes is None else size - limit_bytes)
    evicted: list[Blob] = []
    for blob in sorted(blobs, key=lambda blob: (blob.used_at, blob.sha256)):
        if excess <= 0:
            break
        if blob.sha256 not in leased:
            evicted.append(blob)
            excess -= blob.size_bytes
    return evicted if excess <= 0 else None
