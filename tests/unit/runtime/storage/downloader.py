"""Processes that download a file in many small parts and are killed on the way, for tests of interrupted downloads."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tunesmith_api.run import Store
from tunesmith_runtime.storage import Storage, open_storage
from tunesmith_runtime.storage.s3 import downloads, reader, streams

PART_BYTES = 64 << 10
BLOCK_BYTES = 16 << 10


def small_parts(patch: pytest.MonkeyPatch) -> None:
    """Let downloads have small parts."""
    patch.setattr(downloads, "PART_BYTES", PART_BYTES)
    patch.setattr(streams, "BLOCK_BYTES", BLOCK_BYTES)


def many_streams(patch: pytest.MonkeyPatch) -> None:
    """Let downloads have as many streams as a file may have, from their first block on."""
    patch.setattr(streams, "WINDOW_SECONDS", 0)
    patch.setattr(streams, "needs_stream", lambda *_: True)


def on_blocks(patch: pytest.MonkeyPatch, call: Any) -> None:
    """Call `call` with the number of bytes of each block that is received, before it is written."""
    read = reader.ObjectReader.readinto

    def noted(self: reader.ObjectReader, buffer: memoryview) -> int:
        count = read(self, buffer)
        call(count)
        return count

    patch.setattr(reader.ObjectReader, "readinto", noted)


def _download_and_die(storage: Storage, uri: str, path: Path, deadly: int) -> None:
    """Download. The process kills itself at the block `deadly`."""
    patch, lock, blocks = pytest.MonkeyPatch(), threading.Lock(), itertools.count(1)

    def count(_: int) -> None:
        with lock:
            if next(blocks) == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

    small_parts(patch)
    many_streams(patch)
    on_blocks(patch, count)
    storage.download(uri, path)


def _fork_downloads(
    store: Store, uri: str, folder: Path, environment: Mapping[str, str], deadly: list[int], killed: Any
) -> None:
    os.environ.update(environment)
    storage = open_storage(store)
    assert storage.stat(uri)  # a client takes most of a second
    for number, block in enumerate(deadly):
        if (child := os.fork()) == 0:
            _download_and_die(storage, uri, folder / str(number), block)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed.value += os.waitstatus_to_exitcode(status) == -signal.SIGKILL


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def run_downloads(store: Store, uri: str, folder: Path, environment: Mapping[str, str], deadly: list[int]) -> int:
    """Download `uri` to FOLDER/N for each N, in a process that kills itself at its block deadly[N]. Returns the number of kills."""
    killed = CONTEXT.Value("i", 0, lock=False)
    process = CONTEXT.Process(target=_fork_downloads, args=(store, uri, folder, dict(environment), deadly, killed))
    process.start()
    process.join(120)
    return int(killed.value)
