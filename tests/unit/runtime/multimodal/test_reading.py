"""Files of media are read once from the store while there is room on the disk."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tunesmith_api.run import Store
from tunesmith_runtime.multimodal.reading import KeptFiles, StoreReader, kept_bytes


def test_a_kept_file_is_read_once_and_one_without_room_in_each_pass(tmp_path: Path) -> None:
    reads: list[str] = []

    def read(uri: str) -> bytes | None:
        reads.append(uri)
        return {"s3://a": b"12345", "s3://b": b"67890"}.get(uri)

    files = KeptFiles(read, tmp_path, most_bytes=8)
    for _ in range(2):
        assert [files(uri) for uri in ("s3://a", "s3://b", "s3://none")] == [b"12345", b"67890", None]
    assert reads == ["s3://a", "s3://b", "s3://none", "s3://b", "s3://none"]


def test_threads_may_read_the_same_file_at_once(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def read(uri: str) -> bytes:
        barrier.wait()
        return b"content"

    files = KeptFiles(read, tmp_path / "kept", most_bytes=1000)
    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(files, ["s3://a"] * 8)] == [b"content"] * 8
    assert len([*(tmp_path / "kept").iterdir()]) == 1


def test_a_forked_process_opens_the_store_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    reader = StoreReader(Store(uri=f"file://{tmp_path}"))
    assert reader(f"file://{tmp_path}/a") == b"content"
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=lambda: queue.put((reader(f"file://{tmp_path}/a"), len(reader._opened))))
    child.start()
    assert queue.get(timeout=60) == (b"content", 2)
    child.join()


def test_half_of_what_a_limit_leaves_may_be_kept(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(bytes(1000))
    assert kept_bytes(tmp_path, "5000") == 2000
    assert kept_bytes(tmp_path, "500") == 0
    assert kept_bytes(tmp_path, None) > 0
