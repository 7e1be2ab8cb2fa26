"""Files in parts: transferred several at a time and in any order, while their sha256 is computed in order."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Collection
from dataclasses import dataclass

BLOCK_BYTES = 256 << 10
"""Bytes that are read, hashed or written at a time: few enough to stay in the processor's cache."""


@dataclass(frozen=True)
class Part:
    """A range of a file's bytes. `number` counts from 0."""

    number: int
    offset: int
    size_bytes: int

    @property
    def end(self) -> int:
        """Offset of the first byte behind the part."""
        return self.offset + self.size_bytes


def split_file(size_bytes: int, part_bytes: int) -> list[Part]:
    """Return the parts of a file: all of `part_bytes` but the last. An empty file has none."""
    offsets = range(0, size_bytes, part_bytes)
    return [Part(number, offset, min(part_bytes, size_bytes - offset)) for number, offset in enumerate(offsets)]


def pread_into(descriptor: int, view: memoryview, offset: int) -> int:
    """Read from `offset` of a file into `view`. Returns the number of bytes. Raises OSError at the end of the file."""
    count = os.preadv(descriptor, [view], offset)
    if not count:
        raise OSError(f"the file ended at byte {offset} while it was read")
    return count


def pwrite_all(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of `content` at `offset` of a file; a single write may be short, as on a disk that becomes full."""
    view = memoryview(content)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


class OrderedHash:
    """sha256 of a file whose parts are completed in any order, from several threads.

    A thread that completes the next part in order hashes it, and the parts behind it that were completed before. They were
    just written, so the page cache has them, and no byte is read from the disk.
    """

    def __init__(self, descriptor: int, parts: Collection[Part]) -> None:
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self._waiting: dict[int, Part] = {}
        self._next = 0
        self._count = len(parts)
        self._is_hashing = False
        self._lock = threading.Lock()

    def complete(self, part: Part) -> None:
        """Note that the file has all bytes of `part`, and hash what can be hashed in order."""
        with self._lock:
            self._waiting[part.number] = part
            if self._is_hashing:
                return
            self._is_hashing = True
        while (following := self._take()) is not None:
            self._update(following)

    def _take(self) -> Part | None:
        with self._lock:
            part = self._waiting.pop(self._next, None)
            self._next += part is not None
            self._is_hashing = part is not None
            return part

    def _update(self, part: Part) -> None:
        buffer, offset = memoryview(bytearray(BLOCK_BYTES)), part.offset
        while offset < part.end:
            count = pread_into(self._descriptor, buffer[: part.end - offset], offset)
            self._hash.update(buffer[:count])
            offset += count

    def hexdigest(self) -> str:
        """Return the sha256 as hex, after all parts were completed."""
        assert self._next == self._count, f"{self._next} of {self._count} parts were completed"
        return self._hash.hexdigest()


class PartBody:
    """A part of a file as the body of a request: read in blocks into one buffer, so memory does not grow with the part."""

    def __init__(self, descriptor: int, part: Part) -> None:
        self._descriptor = descriptor
        self._part = part
        self._position = 0
        self._buffer = memoryview(bytearray(min(BLOCK_BYTES, part.size_bytes)))

    def __len__(self) -> int:
        return self._part.size_bytes

    def read(self, size: int = -1) -> memoryview:
        """Return the next bytes, at most `size` and at most a block. They are valid until the next call."""
        left = len(self) - self._position
        wanted = min(left, len(self._buffer), left if size < 0 else size)
        if not wanted:
            return self._buffer[:0]
        count = pread_into(self._descriptor, self._buffer[:wanted], self._part.offset + self._position)
        self._position += count
        return self._buffer[:count]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to `offset`, as for a file."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self)}[whence]
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position
