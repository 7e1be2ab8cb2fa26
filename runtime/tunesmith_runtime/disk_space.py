"""Disk space of the work directory: what a run needs and what is free, compared before training."""

from __future__ import annotations

import shutil
from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_api.quantities import bytes_of
from tunesmith_runtime.errors import RunFailure

FLOAT32 = 4
STATE = 3 * FLOAT32
"""Bytes of a trained parameter in a checkpoint: the weight and AdamW's two moments (Kingma and Ba, 2015), in float32."""


def extra_bytes(parameters: int, trained: int, number: int, merge: bool) -> int:
    """Return the peak number of bytes that a run needs beside model and data: for a checkpoint or for the results.

    The base has `parameters` numbers, stored in `number` bytes each in the result; `trained` numbers are trained. A single
    checkpoint is on the disk at a time, whatever checkpoint.keep. This is a lower bound: it leaves out tokenizers, logs and
    the checkpoint that a resumed run has downloaded.
    """
    adapter_and_merged = FLOAT32 * trained + number * parameters
    return max(STATE * trained, adapter_and_merged if merge else 0)


def extra_bytes_of(weights: int, full: bool, merge: bool) -> int:
    """Like `extra_bytes`, by the size of the base's weights alone: at most 4 bytes a number, and at least 2 in the result."""
    parameters = weights // FLOAT32
    return extra_bytes(parameters, parameters if full else 0, 2, merge and not full)


def used(root: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def check_room(root: Path, limit: str | int | None, needed: int, what: str) -> None:
    """Check that `needed` more bytes fit on the disk of `root` and within `limit`, the maximum size of `root`.

    Raises RunFailure (DiskFull) with both numbers.
    """
    root.mkdir(parents=True, exist_ok=True)
    free, where = shutil.disk_usage(root).free, f"{root} has"
    most = bytes_of(limit or 0)
    if most and (left := max(0, most - used(root))) < free:
        free, where = left, f"resources.ephemeralStorage {limit} leaves"
    if needed > free:
        raise RunFailure(
            FailureClass.DISK_FULL, f"{what} takes {needed / 1e9:.1f} GB more, and {where} {free / 1e9:.1f} GB free"
        )
