"""Downloads from S3: one request where that is fast enough, several streams where it is not, and resumed after a kill."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.s3 import S3Server
from tests.unit.runtime.storage.downloader import (
    BLOCK_BYTES,
    PART_BYTES,
    many_streams,
    on_blocks,
    run_downloads,
    small_parts,
)
from tests.unit.runtime.storage.publisher import on_requests
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Store
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage import Storage, join, open_storage
from tunesmith_runtime.storage.parts import split_file
from tunesmith_runtime.storage.s3 import S3, streams
from tunesmith_runtime.storage.s3.connection import STREAMS_PER_FILE
from tunesmith_runtime.storage.s3.streams import needs_stream

KILLS = 20
SIZE = 16 * PART_BYTES + 7


@pytest.fixture
def store(s3: S3Server) -> Store:
    return s3.store(s3.new_bucket())


@pytest.fixture
def content(store: Store) -> bytes:
    """The content of the object `f`."""
    content = os.urandom(SIZE)
    open_storage(store).write_bytes(join(store.uri, "f"), content)
    return content


def ranges_of(storage: Storage, store: Store) -> list[str]:
    """The ranges of the requests for content, as they are sent; "" for a whole object."""
    found = list[str]()
    backend = storage._backend(store.uri)
    assert isinstance(backend, S3)

    def note(request: Any, event_name: str) -> None:
        if event_name.endswith("GetObject"):
            found.append(request.headers.get("Range", b"").decode())

    on_requests(backend, note)
    return found


def test_a_file_is_downloaded_by_one_request_as_long_as_cores_and_not_the_network_limit_it(
    store: Store, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)
    monkeypatch.setattr(streams, "needs_stream", lambda *_: False)
    storage = open_storage(store)
    ranges = ranges_of(storage, store)
    assert storage.download(join(store.uri, "f"), tmp_path / "f") == hashlib.sha256(content).hexdigest()
    assert ranges == [""]
    assert (tmp_path / "f").read_bytes() == content


@pytest.mark.parametrize(
    ("waiting_share", "running", "is_needed"),
    [(0.9, 16, True), (0.3, 16, False), (0.3, 1, True), (0.3, 2, False), (0.9, 2, True)],
)
def test_a_further_stream_is_for_idle_cores_and_distant_stores(
    waiting_share: float, running: int, is_needed: bool
) -> None:
    assert needs_stream(waiting_share, running, cores=2) is is_needed


def test_a_slow_store_gets_as_many_streams_as_a_file_may_have(
    store: Store, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)
    monkeypatch.setattr(streams, "WINDOW_SECONDS", 0.02)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    on_blocks(monkeypatch, lambda _: time.sleep(0.01))
    storage = open_storage(store)
    ranges = ranges_of(storage, store)
    assert storage.download(join(store.uri, "f"), tmp_path / "f") == hashlib.sha256(content).hexdigest()
    assert len(ranges) >= STREAMS_PER_FILE
    assert (tmp_path / "f").read_bytes() == content


def test_a_failure_of_any_stream_ends_the_download_and_keeps_the_parts_it_has(
    store: Store, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = itertools.count(1)

    def fail(_: int) -> None:
        if next(blocks) == 30:
            raise OSError(errno.ENOSPC, "no space left on device")

    storage, uri, path = open_storage(store), join(store.uri, "f"), tmp_path / "f"
    small_parts(monkeypatch)
    many_streams(monkeypatch)
    with monkeypatch.context() as patch:
        on_blocks(patch, fail)
        with pytest.raises(RunFailure) as failure:
            storage.download(uri, path)
    assert failure.value.failure is FailureClass.DISK_FULL
    left = missing_bytes(path)
    assert 0 < left < SIZE
    received = list[int]()
    on_blocks(monkeypatch, received.append)
    assert storage.download(uri, path) == hashlib.sha256(content).hexdigest()
    assert sum(received) == left


def missing_bytes(path: Path) -> int:
    """The bytes of the parts that the journal of a broken download does not list."""
    journal = path.with_name(path.name + ".incomplete-parts")
    lines = journal.read_text().split("\n")[1:-1] if journal.is_file() else []
    parts = split_file(SIZE, PART_BYTES)
    return SIZE - sum(parts[int(line)].size_bytes for line in lines)


def test_a_download_that_is_killed_at_any_point_continues_with_what_is_missing(
    s3: S3Server, store: Store, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, storage, uri = random.Random(11), open_storage(store), join(store.uri, "f")
    deadly = [draw.randint(1, SIZE // BLOCK_BYTES) for _ in range(KILLS)]
    assert run_downloads(store, uri, tmp_path, s3.environment, deadly) == KILLS
    received, continued = list[int](), 0
    small_parts(monkeypatch)
    many_streams(monkeypatch)
    on_blocks(monkeypatch, received.append)
    for number in range(KILLS):
        path = tmp_path / str(number)
        assert not path.exists()
        left = missing_bytes(path)
        received.clear()
        assert storage.download(uri, path) == hashlib.sha256(content).hexdigest()
        assert path.read_bytes() == content
        assert sum(received) == left
        continued += left < SIZE
    assert continued > KILLS // 2
