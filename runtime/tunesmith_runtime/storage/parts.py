"""Files in parts: transferred several at a time and in any order, while their sha256 is computed in order."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
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
    """sha256 of a file whose parts are completed in any order, by several threads.

    A thread that receives the next part in order hashes each block while it has it. Parts behind a gap are hashed by the
    thread in `follow`, from the page cache, since they were just written.
    """

    def __init__(self, descriptor: int, parts: Sequence[Part], present: Iterable[int] = ()) -> None:
        """`present`: numbers of the parts that the file has already."""
        self._descriptor = descriptor
        self._parts = parts
        self._hash = hashlib.sha256()
        self._next = 0
        """Number of the first part that is not hashed."""
        self._complete = set(present)
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def is_next(self, part: Part) -> bool:
        """Whether all bytes before `part`, which is incomplete, are hashed: then the caller passes its bytes to `update`."""
        with self._changed:
            return part.number == self._next

    def update(self, block: memoryview) -> None:
        """Hash the next bytes of the part for which `is_next` was true."""
        self._hash.update(block)

    def complete(self, part: Part, is_hashed: bool = False) -> None:
        """Note that the file has all bytes of `part`. `is_hashed`: `update` has had them."""
        with self._changed:
            if is_hashed:
                self._next += 1
            else:
                self._complete.add(part.number)
            self._changed.notify_all()

    def abort(self, failure: BaseException) -> None:
        """End `follow` with this failure, if it is the first."""
        with self._changed:
            self._failure = self._failure or failure
            self._changed.notify_all()

    def follow(self) -> str:
        """Hash the complete parts that nobody has hashed, until the whole file is. Returns the sha256 as hex, or raises the failure."""
        while (part := self._next_complete()) is not None:
            self._read(part)
            self.complete(part, is_hashed=True)
        return self._hash.hexdigest()

    def _next_complete(self) -> Part | None:
        """Wait for the next part to read. None at the end of the file."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._failure or self._next in self._complete or self._next == len(self._parts)
            )
            if self._failure:
                raise self._failure
            return None if self._next == len(self._parts) else self._parts[self._next]

    def _read(self, part: Part) -> None:
        buffer, offset = memoryview(bytearray(BLOCK_BYTES)), part.offset
        while offset < part.end:
            count = pread_into(self._descriptor, buffer[: part.end - offset], offset)
            self._hash.update(buffer[:count])
            offset += count


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
