"""How the processes of a world find each other: at a port of pod 0, however late any of them comes.

Which pods there are, and that all end when one has failed, is Kubernetes' part. So a process waits for the others for
as long as they may be on their way, and gives up early only where packets are lost: a pod that has an address answers or
refuses; silence is a network policy. Nor does process 0 wait for others that need not come: a pod that a queue has stopped
while it exported comes back alone, since the others' work was done.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from tunesmith_api.common import Accelerator
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import World
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.rank import Place
from tunesmith_runtime.train.process_group import Peers

if TYPE_CHECKING:
    from torch.distributed import TCPStore

log = logging.getLogger(__name__)

BACKENDS = {
    Accelerator.CPU: "gloo",
    Accelerator.NVIDIA: "cpu:gloo,cuda:nccl",
    Accelerator.ASCEND: "cpu:gloo,npu:hccl",
}
"""What carries tensors: the vendor's library between devices, gloo for the few flags that are agreed on."""
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torch and accelerate read a process's place from."""
BEGUN = "begun"
"""Key by which process 0 says that all are here."""
LOOPBACK = "127.0.0.1"
CONNECT_SECONDS, LOOK_SECONDS, TELL_SECONDS = 5.0, 0.5, 60.0
DONE_SECONDS = 60.0
"""Before the first look whether the others are still needed, and between two: those that come at all have come by then."""
POLICIES = "let the network policies of this namespace allow the pods of a job to reach each other on every port"


def alone() -> None:
    """Let no library take this process for one of several, whatever the pod's environment says."""
    for name in VARIABLES:
        os.environ.pop(name, None)


class NothingLeftToDo(Exception):
    """What the processes were to do together has been done."""


class Patience:
    """How long the processes of `world` are waited for, and whether they still need to come."""

    def __init__(self, world: World, is_done: Callable[[], bool]) -> None:
        self._world, self._is_done = world, is_done
        now = time.monotonic()
        self._end, self._looked, self._told = now + world.rendezvous_seconds, now, now - TELL_SECONDS

    def wait(self, how_far: str, others_decide: bool = False) -> None:
        """Sleep for a moment, in Python, so that SIGTERM ends it at once.

        Raises RunFailure (CollectiveFailed) when it has been too long, and NothingLeftToDo, unless that is for others to say.
        """
        now = time.monotonic()
        if now > self._end:
            raise _too_late(self._world, how_far)
        if now - self._looked >= DONE_SECONDS and not others_decide:
            self._looked = now
            if self._nothing_is_left():
                raise NothingLeftToDo
        if now - self._told >= TELL_SECONDS:
            self._told = now
            log.info("waiting for the other processes: %s", how_far)
        time.sleep(LOOK_SECONDS)

    def _nothing_is_left(self) -> bool:
        try:
            return self._is_done()
        except RunFailure as failure:  # who waits needs no store yet
            log.warning("cannot see whether the others are still needed: %s", failure)
            return False


def join(world: World, accelerator: Accelerator, is_done: Callable[[], bool]) -> Peers:
    """Meet the other processes of `world` and make torch's process group of them. It imports torch.

    Raises RunFailure (CollectiveFailed) where they do not come, or packets to pod 0 are lost; and NothingLeftToDo where
    `is_done` says so while they are waited for.
    """
    import torch
    from torch import distributed

    place = Place.own()
    rank = place.rank(world)
    values = (rank, world.size, place.process, world.processes, world.host, world.port)
    os.environ.update({name: str(value) for name, value in zip(VARIABLES, values, strict=True)})
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # else accelerate takes a number of its own
    _take_device(accelerator, place.process)
    if world.nodes == 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = _meet(world, rank, Patience(world, is_done))
    patience = timedelta(seconds=world.collective_seconds)
    store.set_timeout(patience)
    distributed.init_process_group(
        BACKENDS[accelerator],
        store=distributed.PrefixStore("group", store),
        rank=rank,
        world_size=world.size,
        timeout=patience,
    )
    log.info("process %d of %d is in touch with the others", rank, world.size)
    return Peers(rank, world.size, place.process, distributed.PrefixStore("peers", store))


def _take_device(accelerator: Accelerator, index: int) -> None:
    """The device of this process, before the process group binds to one."""
    import torch

    if accelerator is Accelerator.CPU:  # accelerate's own cpu:0, cpu:1 are no places that torch.load knows
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    if accelerator is Accelerator.NVIDIA:
        torch.cuda.set_device(index)
    if accelerator is Accelerator.ASCEND:
        import torch_npu  # type: ignore[import-not-found]  # comes with the host's image

        torch_npu.npu.set_device(index)


def _meet(world: World, rank: int, patience: Patience) -> TCPStore:
    """The store of all, when all are there: process 0 serves it, the others reach for it.

    A queue may stop the pods of a Job and let new ones start under the same names. Who then reaches a process 0 that is
    about to go finds its place taken, or loses it: it reaches again.
    """
    from torch.distributed import DistError

    me = secrets.token_hex(8)
    while True:
        if rank != 0:
            _reach(world, patience)
        try:
            store = _store(world, rank)
            if _all_are_here(store, world, rank, me, patience):
                return store
            stale = "is of an earlier start"
        except DistError as error:
            if rank == 0:
                raise
            stale = f"is gone again: {error}"
        patience.wait(f"process 0 at {world.host}:{world.port} {stale}")


def _store(world: World, rank: int) -> TCPStore:
    """Process 0 serves it: to other pods where there are any, else on the pod's own loopback only."""
    from torch.distributed import TCPStore

    patience = timedelta(minutes=1)
    if rank != 0:
        return TCPStore(world.host, world.port, world.size, False, patience, wait_for_workers=False)
    if world.nodes > 1:  # by this name, as its own may not be known yet
        return TCPStore("localhost", world.port, world.size, True, patience, wait_for_workers=False)
    listener = socket.create_server((LOOPBACK, world.port)).detach()
    return TCPStore(LOOPBACK, world.port, world.size, True, patience, wait_for_workers=False, master_listen_fd=listener)


def _reach(world: World, patience: Patience) -> None:
    """Wait until process 0 listens: its pod may have no address yet, or still be busy with fetching."""
    where = f"{world.host}:{world.port}"
    silent_since: float | None = None
    while True:
        try:
            socket.create_connection((world.host, world.port), CONNECT_SECONDS).close()
            return
        except OSError as error:
            reason, is_there = error, isinstance(error, socket.gaierror | ConnectionRefusedError)
        now = time.monotonic()
        silent_since = None if is_there else silent_since or now
        if silent_since and now - silent_since > world.unreachable_seconds:
            message = f"pod 0 of this run has let no packet through to {where} for {world.unreachable_seconds:.0f} s"
            raise RunFailure(FailureClass.COLLECTIVE_FAILED, f"{message}: {reason}", POLICIES)
        patience.wait(f"{where}: {reason}")


def _all_are_here(store: TCPStore, world: World, rank: int, me: str, patience: Patience) -> bool:
    """Wait until process 0 has seen all. False where another has the place of `rank`.

    That process 0 alone says so keeps a world whole: nobody begins with one that has given up, or gives up on one that begins.
    Who loses its connection and comes again finds its own word there, and is not counted twice.
    """
    if store.compare_set(_place(rank), "", me).decode() != me:
        return False
    if rank != 0:
        while not store.check([BEGUN]):
            patience.wait("process 0 has not seen all", others_decide=True)
        return True
    while missing := [other for other in range(world.size) if not store.check([_place(other)])]:
        patience.wait(f"{world.size - len(missing)} of {world.size} processes have come")
    store.set(BEGUN, "")
    return True


def _place(rank: int) -> str:
    return f"here/{rank}"


def _too_late(world: World, what: str) -> RunFailure:
    return RunFailure(
        FailureClass.COLLECTIVE_FAILED,
        f"the {world.size} processes of this run did not meet within {world.rendezvous_seconds:.0f} s: {what}",
        f"look why pods of this run did not start to train; {POLICIES}",
    )
