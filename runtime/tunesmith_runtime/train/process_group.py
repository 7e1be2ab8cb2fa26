"""The processes that train together, as one of them sees the others: what they must agree on, and what they pass on.

Agreement in each step is one all-reduce of a few flags. The rest goes through the key-value store at which the
processes met (torch.distributed.TCPStore), as JSON or plain bytes: nothing that comes over the network is unpickled,
but random states by torch's loader that takes no code.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.distributed import Store

PATIENCE_AT_THE_END = 60.0
"""Seconds that the leader, who holds the store, waits for the others to have read it."""


class Peers:
    """A process's view; alone, every method answers from what it is given."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, store: Store | None = None) -> None:
        self.rank, self.size, self._local_rank, self._store = rank, size, local_rank, store
        self._rounds = 0

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes: checkpoints, logs, the result."""
        return self.rank == 0

    @property
    def first_of_pod(self) -> bool:
        """Whether it brings and removes files for the other processes of its pod."""
        return self._local_rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether any of the processes has it. All must ask at the same point."""
        if self.size == 1:
            return flags
        import torch
        from torch import distributed

        told = torch.tensor(flags, dtype=torch.int32)
        distributed.all_reduce(told, distributed.ReduceOp.MAX)
        return tuple(bool(flag) for flag in told.tolist())

    def share(self, value: Any) -> Any:
        """The leader's `value` (JSON-ready), in all processes; what the others give does not count."""
        if self._store is None:
            return value
        key = self._key("share")
        if self.leads:
            self._store.set(key, json.dumps(value))
            return value
        return json.loads(self._store.get(key))

    def collect(self, content: bytes) -> list[bytes]:
        """To the leader the `content` of all, by rank; to the others nothing."""
        if self._store is None:
            return [content]
        key = self._key("collect")
        if not self.leads:
            self._store.set(f"{key}/{self.rank}", content)  # type: ignore[arg-type]  # bytes are taken too
            return []
        others = [f"{key}/{rank}" for rank in range(1, self.size)]
        found = [content, *(bytes(self._store.get(other)) for other in others)]
        for other in others:
            self._store.delete_key(other)
        return found

    def meet(self) -> None:
        """Go on when all have come here."""
        self.any(False)

    def wait_for_leader(self) -> None:
        """Return when the leader has called this too; the leader does not wait.

        Processes call this before they succeed. A pod that has succeeded is never started again (KEP-2214), so the leader
        must have published the result: its replacement would wait in vain for the others.
        """
        self.share(None)

    def _key(self, what: str) -> str:
        self._rounds += 1
        return f"{what}/{self._rounds}"

    @contextmanager
    def until_all_have_read(self) -> Iterator[None]:
        """Ends for the leader when the others have left too, so that the store outlives what they still read from it."""
        yield
        if self._store is None:
            return
        left, end = self._store.add("left", 1), time.monotonic() + PATIENCE_AT_THE_END
        while self.leads and left < self.size and time.monotonic() < end:
            time.sleep(0.1)
            left = self._store.add("left", 0)


ALONE = Peers()
