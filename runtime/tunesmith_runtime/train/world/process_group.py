"""A process's view of the processes that train together: what they agree on, and what they exchange.

Agreement in each step is one all-reduce of a few flags. Everything else goes through the key-value store of the rendezvous
(torch.distributed.TCPStore) as JSON or plain bytes. Nothing from the network is unpickled except random states, which
torch loads with `weights_only`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.training import Offload, Strategy
from tunesmith_runtime.errors import RunFailure

if TYPE_CHECKING:
    from torch.distributed import Store

POLL_SECONDS = 0.2
LEAVE_SECONDS = 60.0
"""Time that the leader, which serves the store, waits at the end for the other processes to leave it."""


class ProcessGroup:
    """The group as one process sees it. A process on its own is a group of size 1, which needs no store.

    All processes must call a method that exchanges data at the same point of the program.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, store: Store | None = None) -> None:
        self.rank, self.size, self._local_rank, self._store = rank, size, local_rank, store
        self.strategy = Strategy.DDP
        """How the processes divide the model."""
        self.offload = Offload.NONE
        """State that the processes keep in the memory of the pod."""
        self.tensor_parallel = 1
        """Processes of successive ranks that share each layer, and take the same rows."""
        self.pipeline_parallel = 1
        """Processes of successive ranks that have some of the layers each, and take the same rows."""
        self.context_parallel = 1
        """Processes of successive ranks that have a part of the tokens of each row."""
        self._rounds = 0

    @property
    def sharing(self) -> int:
        """Processes of successive ranks that take the same rows."""
        return self.tensor_parallel * self.pipeline_parallel * self.context_parallel

    @property
    def shared_by(self) -> str | None:
        """The field above 1, if several processes take the same rows; None if each process takes different rows."""
        fields = ("tensor_parallel", "pipeline_parallel", "context_parallel")
        return next((field for field in fields if getattr(self, field) > 1), None)

    @property
    def replicas(self) -> int:
        """Number of processes, or of groups of them, that take different rows."""
        return self.size // self.sharing

    @property
    def replica(self) -> int:
        """Number of the replica of this process."""
        return self.rank // self.sharing

    @property
    def is_leader(self) -> bool:
        """Whether this process writes checkpoints, logs and the result."""
        return self.rank == 0

    @property
    def is_pod_leader(self) -> bool:
        """Whether this process downloads and removes files for all processes of its pod."""
        return self._local_rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether it is set in any process."""
        if self.size == 1:
            return flags
        import torch
        from torch import distributed

        combined = torch.tensor(flags, dtype=torch.int32)
        distributed.all_reduce(combined, distributed.ReduceOp.MAX)
        return tuple(bool(flag) for flag in combined.tolist())

    def broadcast(self, value: Any) -> Any:
        """Return the leader's `value` (JSON-ready) in every process."""
        if self._store is None:
            return value
        key = self._key("broadcast")
        if self.is_leader:
            self._store.set(key, json.dumps(value))
            return value
        return json.loads(self._store.get(key))

    def gather(self, content: bytes) -> list[bytes]:
        """Return the `content` of all processes by rank to the leader, and an empty list to the others."""
        if self._store is None:
            return [content]
        key = self._key("gather")
        if not self.is_leader:
            self._store.set(f"{key}/{self.rank}", content)  # type: ignore[arg-type]  # bytes are accepted too
            return []
        keys = [f"{key}/{rank}" for rank in range(1, self.size)]
        gathered = [content, *(bytes(self._store.get(each)) for each in keys)]
        for each in keys:
            self._store.delete_key(each)
        return gathered

    def share(self, content: bytes) -> list[bytes]:
        """Return the `content` of all processes by rank, in every process."""
        if self._store is None:
            return [content]
        key = self._key("share")
        keys = [f"{key}/{rank}" for rank in range(self.size)]
        self._store.set(keys[self.rank], content)  # type: ignore[arg-type]  # bytes are accepted too
        shared = [bytes(self._store.get(each)) for each in keys]
        if self._store.add(f"{key}/read", 1) == self.size:
            for each in (*keys, f"{key}/read"):
                self._store.delete_key(each)
        return shared

    def barrier(self) -> None:
        """Return when all processes have called it."""
        self.any(False)

    @contextmanager
    def pod_leader_first(self) -> Iterator[None]:
        """Let the pod's leader run the block before the pod's other processes, which wait for as long as it takes."""
        key = f"{self._key('pod')}/{self.rank - self._local_rank}"
        while self._store is not None and not self.is_pod_leader and not self._store.check([key]):
            time.sleep(POLL_SECONDS)
        yield
        if self._store is not None and self.is_pod_leader:
            self._store.set(key, "")

    def wait_for_leader(self) -> None:
        """Return when the leader has called it too; the leader does not wait.

        Processes call it before they succeed. A pod that has succeeded never starts again (KEP-2214): if the leader were
        lost before it published the result, its replacement would wait for that pod in vain.
        """
        self.broadcast(None)

    def check_in_leader(self, check: Callable[[], None]) -> None:
        """Run `check` in the leader, and raise its RunFailure in all processes, which then end."""
        failure: RunFailure | None = None
        try:
            if self.is_leader:
                check()
        except RunFailure as error:
            failure = error
        raised = self.broadcast(failure and [failure.failure, failure.message, failure.hint])
        if raised:
            self._leave_store()
            class_, message, hint = raised
            raise failure or RunFailure(FailureClass(class_), message, hint)

    @contextmanager
    def serving_store(self) -> Iterator[None]:
        """Keep the leader until the other processes have left the block."""
        yield
        self._leave_store()

    def _leave_store(self) -> None:
        """Keep the leader until the other processes have called it too, so that the store outlives their last reads."""
        if self._store is None:
            return
        left, end = self._store.add("left", 1), time.monotonic() + LEAVE_SECONDS
        while self.is_leader and left < self.size and time.monotonic() < end:
            time.sleep(0.1)
            left = self._store.add("left", 0)

    def _key(self, operation: str) -> str:
        self._rounds += 1
        return f"{operation}/{self._rounds}"


ALONE = ProcessGroup()
