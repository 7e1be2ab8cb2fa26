"""Finds rows that an earlier row repeats, in 16 bytes of memory for each row and the room of a hash table.

Two rows are equal if their records are, after Unicode's composition (NFC) and with each run of white space as one space.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from tunesmith_runtime.data.records import Record

DIGEST_BYTES = 16
SLOTS = 1 << 12
"""Slots of an empty table. At 2/3 of it, the table doubles."""
_FREE = bytes(DIGEST_BYTES)


def digest_of(record: Record) -> bytes:
    """A digest of the record's type and normalized texts."""
    parts = "\x1f".join((type(record).__name__, *_parts(record)))
    return hashlib.blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _parts(value: Any) -> Iterator[str]:
    """The texts in a record, with marks that distinguish lists, objects and other values."""
    if isinstance(value, str):
        yield " ".join(unicodedata.normalize("NFC", value).split())
    elif isinstance(value, Mapping):
        yield "{"
        for key in sorted(value):
            yield str(key)
            yield from _parts(value[key])
        yield "}"
    elif isinstance(value, list | tuple | set | frozenset):
        yield "["
        for each in sorted(value) if isinstance(value, set | frozenset) else value:
            yield from _parts(each)
        yield "]"
    elif is_dataclass(value):
        for each in vars(value).values():
            yield from _parts(each)
    else:
        yield repr(value)


class Digests:
    """A set of digests: a hash table with linear probing in a single array of bytes."""

    def __init__(self) -> None:
        self._slots, self._count = SLOTS, 0
        self._table = bytearray(SLOTS * DIGEST_BYTES)

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Bytes of the table."""
        return len(self._table)

    def add(self, digest: bytes) -> bool:
        """Add a digest; return whether it is new."""
        if digest == _FREE:
            digest = b"\x01" * DIGEST_BYTES
        at = self._find(digest)
        if self._table[at : at + DIGEST_BYTES] != _FREE:
            return False
        self._table[at : at + DIGEST_BYTES] = digest
        self._count += 1
        if 3 * self._count > 2 * self._slots:
            self._grow()
        return True

    def _find(self, digest: bytes) -> int:
        """Offset of the digest in the table, or of the free slot in which it belongs."""
        slot = int.from_bytes(digest[:8], "little") % self._slots
        while True:
            at = slot * DIGEST_BYTES
            if self._table[at : at + DIGEST_BYTES] in (_FREE, digest):
                return at
            slot = (slot + 1) % self._slots

    def _grow(self) -> None:
        old = self._table
        self._slots *= 2
        self._table = bytearray(self._slots * DIGEST_BYTES)
        for start in range(0, len(old), DIGEST_BYTES):
            digest = bytes(old[start : start + DIGEST_BYTES])
            if digest != _FREE:
                at = self._find(digest)
                self._table[at : at + DIGEST_BYTES] = digest
