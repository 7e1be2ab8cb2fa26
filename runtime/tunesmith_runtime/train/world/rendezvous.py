"""The rendezvous: how the processes of a world find each other at a port of pod 0, whenever each of them starts.

Kubernetes starts the pods and ends all when one has failed. So a process waits for the others as long as they may still
start. It gives up early only if packets are lost: a pod with an address accepts or refuses a connection, while silence
means a network policy. Process 0 also ends the wait when the run is trained: pod 0 that a queue stopped during export
starts again alone, because the other pods have completed.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.pods import Accelerator
from tunesmith_api.run import World
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.rank import Rank
from tunesmith_runtime.train.world.process_group import ProcessGroup

if TYPE_CHECKING:
    from torch.distributed import TCPStore

log = logging.getLogger(__name__)

BACKENDS = {
    Accelerator.CPU: "gloo",
    Accelerator.NVIDIA: "cpu:gloo,cuda:nccl",
    Accelerator.AMD: "cpu:gloo,cuda:nccl",  # RCCL, by the name of NCCL
    Accelerator.ASCEND: "cpu:gloo,npu:hccl",
}
"""Backends of the process group: the vendor's library for tensors on devices, gloo for flags on the CPU."""
VISIBLE = {
    Accelerator.NVIDIA: "CUDA_VISIBLE_DEVICES",
    Accelerator.AMD: "HIP_VISIBLE_DEVICES",
    Accelerator.ASCEND: "ASCEND_RT_VISIBLE_DEVICES",
}
"""Variable that hides devices of a container from its processes."""
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables from which torch and accelerate read a process's rank."""
COMPLETE = "complete"
"""Key that process 0 sets when all processes have joined."""
LOOPBACK = "127.0.0.1"
CONNECT_SECONDS, POLL_SECONDS, LOG_SECONDS = 5.0, 0.5, 60.0
TRAINED_POLL_SECONDS = 60.0
"""Interval between two checks whether the run is trained already. Processes that start at all have usually joined before
the first."""
NETWORK_HINT = "let the network policies of this namespace allow the pods of a job to reach each other on every port"


def clear_environment() -> None:
    """Remove rank variables from the environment, so that no library takes a single process for a member of a group."""
    for name in VARIABLES:
        os.environ.pop(name, None)


class AlreadyTrained(Exception):
    """The run is trained already: the process has nothing to do."""


class Patience:
    """Bounds the wait for the processes of `world`."""

    def __init__(self, world: World, is_trained: Callable[[], bool]) -> None:
        self._world, self._is_trained = world, is_trained
        now = time.monotonic()
        self._deadline, self._checked, self._logged = now + world.rendezvous_seconds, now, now - LOG_SECONDS

    def wait(self, state: str, is_leader_waiting: bool = True) -> None:
        """Sleep for a moment, in Python, so that SIGTERM ends the wait at once. `state` goes to the log.

        Raises RunFailure (CollectiveFailed) after the deadline, and AlreadyTrained unless process 0 has to decide that.
        """
        now = time.monotonic()
        if now > self._deadline:
            raise _too_late(self._world, state)
        if now - self._checked >= TRAINED_POLL_SECONDS and is_leader_waiting:
            self._checked = now
            if self._read_is_trained():
                raise AlreadyTrained
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            log.info("waiting for the other processes: %s", state)
        time.sleep(POLL_SECONDS)

    def _read_is_trained(self) -> bool:
        try:
            return self._is_trained()
        except RunFailure as failure:  # a store that is not reachable does not end the wait
            log.warning("cannot read whether the run is trained already: %s", failure)
            return False


def join(world: World, accelerator: Accelerator, is_trained: Callable[[], bool]) -> ProcessGroup:
    """Meet the other processes of `world` and initialize torch's process group. Imports torch.

    Raises RunFailure (CollectiveFailed) if they do not join in time or packets to pod 0 are lost, and AlreadyTrained if
    `is_trained` becomes true during the wait.
    """
    import torch
    from torch import distributed

    own = Rank.from_environment()
    rank = own.of(world)
    values = (rank, world.size, own.process, world.processes, world.host, world.port)
    os.environ.update({name: str(value) for name, value in zip(VARIABLES, values, strict=True)})
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # else accelerate sets a number of its own
    _select_device(accelerator, own.process)
    if world.nodes == 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = _meet(world, rank, Patience(world, is_trained))
    timeout = timedelta(seconds=world.collective_seconds)
    store.set_timeout(timeout)
    distributed.init_process_group(
        BACKENDS[accelerator],
        store=distributed.PrefixStore("group", store),
        rank=rank,
        world_size=world.size,
        timeout=timeout,
    )
    log.info("process %d of %d has joined the process group", rank, world.size)
    return ProcessGroup(rank, world.size, own.process, distributed.PrefixStore("peers", store))


def _select_device(accelerator: Accelerator, index: int) -> None:
    """Select the device of this process before the process group binds to a device. Raises RunFailure (BadSpec) if a variable hides it."""
    import torch

    if accelerator is Accelerator.CPU:  # torch.load does not know accelerate's own cpu:0, cpu:1
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        return
    devices: Any = torch.cuda
    if accelerator is Accelerator.ASCEND:
        import torch_npu  # type: ignore[import-not-found]  # part of the vendor's base image

        devices = torch_npu.npu
    hiding = VISIBLE[accelerator]
    if hiding in os.environ and index >= devices.device_count():
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"{hiding} is {os.environ[hiding]!r}, which leaves no device for process {index} of the pod",
            f"remove {hiding} from spec.pod.env",
        )
    devices.set_device(index)


def _meet(world: World, rank: int, patience: Patience) -> TCPStore:
    """Return the store of all processes when all have joined. Process 0 serves it, the others connect.

    A queue may stop the pods of a Job and start new ones under the same names. A process that connects to a process 0
    which is about to end finds its rank taken, or loses the connection: it connects again.
    """
    from torch.distributed import DistError

    identity = secrets.token_hex(8)
    while True:
        if rank != 0:
            _connect(world, patience)
        try:
            store = _open_store(world, rank)
            if _all_have_joined(store, world, rank, identity, patience):
                return store
            stale = "belongs to an earlier start"
        except DistError as error:
            if rank == 0:
                raise
            stale = f"has ended: {error}"
        patience.wait(f"process 0 at {world.host}:{world.port} {stale}")


def _open_store(world: World, rank: int) -> TCPStore:
    """Serve the store in process 0, to other pods if there are any, else on loopback only; connect in the others."""
    from torch.distributed import TCPStore

    timeout = timedelta(minutes=1)
    if rank != 0:
        return TCPStore(world.host, world.port, world.size, False, timeout, wait_for_workers=False)
    if world.nodes > 1:  # localhost, as the pod may not resolve its own name yet
        return TCPStore("localhost", world.port, world.size, True, timeout, wait_for_workers=False)
    listener = socket.create_server((LOOPBACK, world.port)).detach()
    return TCPStore(LOOPBACK, world.port, world.size, True, timeout, wait_for_workers=False, master_listen_fd=listener)


def _connect(world: World, patience: Patience) -> None:
    """Wait until process 0 listens: its pod may have no address yet, or be fetching."""
    address = f"{world.host}:{world.port}"
    silent_since: float | None = None
    while True:
        try:
            socket.create_connection((world.host, world.port), CONNECT_SECONDS).close()
            return
        except OSError as error:
            reason, is_answered = error, isinstance(error, socket.gaierror | ConnectionRefusedError)
        now = time.monotonic()
        silent_since = None if is_answered else silent_since or now
        if silent_since and now - silent_since > world.unreachable_seconds:
            message = f"pod 0 of this run has let no packet through to {address} for {world.unreachable_seconds:.0f} s"
            raise RunFailure(FailureClass.COLLECTIVE_FAILED, f"{message}: {reason}", NETWORK_HINT)
        patience.wait(f"{address}: {reason}")


def _all_have_joined(store: TCPStore, world: World, rank: int, identity: str, patience: Patience) -> bool:
    """Wait until process 0 announces that all have joined. Return False if another process has joined with `rank`.

    Process 0 alone decides, so that no process begins with a group that another has left. A process that loses its
    connection and returns finds its own identity, and is not counted twice.
    """
    if store.compare_set(_joined(rank), "", identity).decode() != identity:
        return False
    if rank != 0:
        while not store.check([COMPLETE]):
            patience.wait("process 0 waits for further processes", is_leader_waiting=False)
        return True
    while missing := [other for other in range(world.size) if not store.check([_joined(other)])]:
        patience.wait(f"{world.size - len(missing)} of {world.size} processes have joined")
    store.set(COMPLETE, "")
    return True


def _joined(rank: int) -> str:
    return f"joined/{rank}"


def _too_late(world: World, state: str) -> RunFailure:
    return RunFailure(
        FailureClass.COLLECTIVE_FAILED,
        f"the {world.size} processes of this run did not meet within {world.rendezvous_seconds:.0f} s: {state}",
        f"find out why pods of this run did not start to train; {NETWORK_HINT}",
    )
