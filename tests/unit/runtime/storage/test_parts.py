"""Files in parts: every byte belongs to one part, and the sha256 does not depend on the order of completion."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.storage import parts as module
from tunesmith_runtime.storage.parts import OrderedHash, Part, PartBody, pwrite_all, split_file


@given(size=st.integers(0, 10_000), part=st.integers(1, 3_000))
def test_parts_cover_a_file_without_gaps(size: int, part: int) -> None:
    parts = split_file(size, part)
    assert [each.number for each in parts] == list(range(len(parts)))
    assert [each.offset for each in parts] == [0, *(each.end for each in parts)][: len(parts)]
    assert sum(each.size_bytes for each in parts) == size
    assert all(0 < each.size_bytes <= part for each in parts)


@given(content=st.binary(max_size=600), part=st.integers(1, 100), data=st.data())
def test_the_hash_is_that_of_the_file_in_whatever_order_parts_are_completed(
    content: bytes, part: int, data: st.DataObject
) -> None:
    parts = split_file(len(content), part)
    present = data.draw(st.sets(st.sampled_from(parts))) if parts else set()
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        checksum = OrderedHash(file.fileno(), parts, (each.number for each in present))
        for each in data.draw(st.permutations([each for each in parts if each not in present])):
            checksum.complete(each, is_hashed=hash_if_next(checksum, each, content))
        assert checksum.follow() == hashlib.sha256(content).hexdigest()


def hash_if_next(checksum: OrderedHash, part: Part, content: bytes) -> bool:
    """Hash a part as its stream does. Returns whether it was its turn."""
    is_next = checksum.is_next(part)
    if is_next:
        checksum.update(memoryview(content)[part.offset : part.end])
    return is_next


def test_threads_that_complete_parts_at_the_same_time_hash_each_byte_once(tmp_path: Path) -> None:
    content = os.urandom(3_000_017)
    (tmp_path / "f").write_bytes(content)
    with (tmp_path / "f").open("rb") as file, ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            parts = split_file(len(content), 10_007)
            checksum = OrderedHash(file.fileno(), parts)
            start = threading.Barrier(8)

            def complete(share: list[Part], checksum: OrderedHash = checksum, start: threading.Barrier = start) -> None:
                start.wait(30)
                for each in share:
                    checksum.complete(each, is_hashed=hash_if_next(checksum, each, content))

            for number in range(8):
                pool.submit(complete, parts[number::8])
            assert checksum.follow() == hashlib.sha256(content).hexdigest()


def test_a_part_that_was_hashed_as_it_came_is_not_read_again(tmp_path: Path) -> None:
    parts = split_file(6, 2)
    (tmp_path / "f").write_bytes(b"\0\0cd\0\0")
    with (tmp_path / "f").open("rb") as file:
        checksum = OrderedHash(file.fileno(), parts, {1})
        assert hash_if_next(checksum, parts[0], b"ab")
        checksum.complete(parts[0], is_hashed=True)
        assert not checksum.is_next(parts[2])
        with ThreadPoolExecutor(1) as pool:
            digest = pool.submit(checksum.follow)
            while not hash_if_next(checksum, parts[2], b"....ef"):
                time.sleep(0.001)
            checksum.complete(parts[2], is_hashed=True)
            assert digest.result(30) == hashlib.sha256(b"abcdef").hexdigest()


def test_the_failure_of_a_stream_ends_the_hash(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    with (tmp_path / "f").open("rb") as file:
        checksum = OrderedHash(file.fileno(), split_file(3, 1), {0, 2})
        checksum.abort(OSError("first"))
        checksum.abort(OSError("second"))
        with pytest.raises(OSError, match="first"):
            checksum.follow()


@given(content=st.binary(max_size=200), block=st.integers(1, 50), size=st.integers(1, 70), data=st.data())
def test_the_body_of_a_part_is_its_bytes_however_they_are_read(
    content: bytes, block: int, size: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(content)))
    part = Part(0, first, data.draw(st.integers(0, len(content) - first)))
    with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_BYTES", block)
        file.write(content)
        file.flush()
        body = PartBody(file.fileno(), part)
        for _ in range(2):  # a second request sends it again
            read = b"".join(bytes(each) for each in iter(lambda: body.read(size), b""))
            assert read == content[part.offset : part.end]
            assert body.tell() == len(body) == part.size_bytes
            body.seek(0)


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    with (tmp_path / "f").open("rb") as file, pytest.raises(OSError, match="ended at byte 3"):
        PartBody(file.fileno(), Part(0, 3, 5)).read(5)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, content, offset: write(descriptor, content[:3], offset))
    with (tmp_path / "f").open("wb") as file:
        pwrite_all(file.fileno(), b"0123456789", 2)
    assert (tmp_path / "f").read_bytes() == b"\0\x000123456789"
