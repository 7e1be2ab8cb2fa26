"""Data files in a folder of a test, and their rows."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.files import read_rows
from tunesmith_runtime.errors import RunFailure


def zstd(content: bytes) -> bytes:
    """Content as a Zstandard stream."""
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as out:
        out.write(content)
    return bytes(sink.getvalue())


COMPRESS = {"": bytes, ".gz": gzip.compress, ".zst": zstd}


def rows_of(folder: Path, name: str, content: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a file with that name and content, with their places."""
    path = folder / name
    path.write_bytes(content)
    return [(str(place), row) for place, row in read_rows(path, f"s3://data/{name}")]


def refusal(folder: Path, name: str, content: bytes) -> RunFailure:
    """The failure of a file, which is a BadRow whose message begins with its name and ends with its URI."""
    with pytest.raises(RunFailure) as raised:
        rows_of(folder, name, content)
    failure = raised.value
    assert failure.failure is FailureClass.BAD_ROW
    assert failure.message.startswith(name)
    assert failure.message.endswith(f"(s3://data/{name})")
    assert len(failure.message.encode()) < 4_000
    return failure
