"""Processes wait for each other however late they start, and give up early only if packets are lost."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import free_port
from tunesmith_api.failures import FailureClass
from tunesmith_api.pods import Accelerator
from tunesmith_api.run import INDEX_VARIABLE, World
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.rank import PROCESS_VARIABLE, Rank, in_leading_pod
from tunesmith_runtime.train.world import rendezvous
from tunesmith_runtime.train.world.process_group import ALONE
from tunesmith_runtime.train.world.rendezvous import (
    VARIABLES,
    AlreadyTrained,
    Patience,
    _connect,
    _meet,
    clear_environment,
)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(rendezvous, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(rendezvous, "TRAINED_POLL_SECONDS", 0.1)


def patience(world: World) -> Patience:
    return Patience(world, lambda: False)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port whose queue of connections is full, so that packets are dropped as by a network policy."""
    listener, waiting = socket.socket(), []
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port = listener.getsockname()[1]
    for _ in range(3):
        waiting.append(socket.socket())
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex(("127.0.0.1", port))
    yield port
    for each in (*waiting, listener):
        each.close()


def test_an_unreachable_pod_0_fails_with_a_hint_at_network_policies(silent: int) -> None:
    world = World(nodes=2, port=silent, unreachable_seconds=0.3)
    with pytest.raises(RunFailure, match="let no packet through") as failure:
        _connect(world, patience(world))
    assert failure.value.failure is FailureClass.COLLECTIVE_FAILED
    assert "network policies" in str(failure.value.hint)


@pytest.mark.parametrize("host", ["127.0.0.1", "support-tune-1-0.not-there.invalid"])
def test_processes_wait_for_a_pod_0_that_is_unresolved_or_refuses(host: str) -> None:
    """They wait beyond `unreachable_seconds`, until the rendezvous as a whole times out."""
    world = World(nodes=2, host=host, port=free_port(), unreachable_seconds=0.05, rendezvous_seconds=1)
    with pytest.raises(RunFailure, match="did not meet within 1 s") as failure:
        _connect(world, patience(world))
    assert failure.value.failure is FailureClass.COLLECTIVE_FAILED


def test_all_processes_wait_for_the_last() -> None:
    world = World(nodes=3, port=free_port())
    met: list[int] = []

    def join(rank: int) -> None:
        _meet(world, rank, patience(world))
        met.append(rank)

    others = [threading.Thread(target=join, args=(rank,), daemon=True) for rank in (1, 2)]
    for other in others:
        other.start()
    time.sleep(0.5)
    assert met == []
    store = _meet(world, 0, patience(world))
    for other in others:
        other.join(30)
    assert sorted(met) == [1, 2]
    del store


def test_pod_0_counts_joined_processes_without_resolving_its_own_name() -> None:
    world = World(nodes=3, host="support-tune-1-0.not-there.invalid", port=free_port(), rendezvous_seconds=0.3)
    with pytest.raises(RunFailure, match="1 of 3 processes have joined"):
        _meet(world, 0, patience(world))


@pytest.mark.parametrize("rank", [0, 1])
def test_the_wait_ends_when_the_run_is_already_trained(rank: int) -> None:
    """For process 0, and for process 1 without a process 0. An unreachable store does not end the wait."""

    def is_trained() -> bool:
        checks.append(rank)
        if len(checks) == 1:
            raise RunFailure(FailureClass.STORAGE_UNREACHABLE, "503")
        return len(checks) == 3

    checks: list[int] = []
    world = World(nodes=2, port=free_port(), rendezvous_seconds=60)
    with pytest.raises(AlreadyTrained):
        _meet(world, rank, Patience(world, is_trained))
    assert len(checks) == 3


def test_only_process_0_decides_to_end_the_wait() -> None:
    """If each decided for itself, a process could begin with a group that another has left."""
    world = World(nodes=3, port=free_port(), rendezvous_seconds=60)
    left: list[int] = []
    trained = threading.Event()

    def join(rank: int) -> None:
        try:
            _meet(world, rank, Patience(world, lambda: rank == 1 or trained.is_set()))
        except AlreadyTrained:
            left.append(rank)

    leader = threading.Thread(target=join, args=(0,), daemon=True)
    leader.start()
    with socket.socket() as probe:
        while probe.connect_ex((world.host, world.port)):
            time.sleep(0.01)
    other = threading.Thread(target=join, args=(1,), daemon=True)
    other.start()
    time.sleep(0.5)
    assert left == []
    trained.set()
    for each in (leader, other):
        each.join(30)
    assert left == [0, 1]


def test_a_new_pod_waits_for_the_successor_of_a_terminating_pod_0() -> None:
    """A queue has suspended and resumed a Job: the pods have the same names, and the old store is complete."""
    from torch.distributed import TCPStore

    world = World(nodes=2, port=free_port())
    old = TCPStore("127.0.0.1", world.port, 2, is_master=True, wait_for_workers=False)
    for rank in range(2):
        old.set(f"joined/{rank}", "earlier")
    met = threading.Event()

    def join() -> None:
        _meet(world, 1, patience(world))
        met.set()

    threading.Thread(target=join, daemon=True).start()
    assert not met.wait(1.0)
    del old
    store = _meet(world, 0, patience(world))
    assert met.wait(30)
    del store


def test_a_process_that_reconnects_is_not_counted_twice() -> None:
    world = World(nodes=3, port=free_port(), rendezvous_seconds=30)
    store = rendezvous._open_store(world, 0)
    for _ in range(2):  # with the connections of the first time lost
        rendezvous._open_store(world, 1).compare_set("joined/1", "", "second")
    assert not store.check(["joined/0", "joined/1", "joined/2"])
    met: list[bool] = []

    def join(rank: int, identity: str) -> None:
        met.append(
            rendezvous._all_have_joined(rendezvous._open_store(world, rank), world, rank, identity, patience(world))
        )

    others = [threading.Thread(target=join, args=each, daemon=True) for each in ((1, "second"), (2, "third"))]
    for other in others:
        other.start()
    time.sleep(0.3)
    assert met == []
    assert rendezvous._all_have_joined(store, world, 0, "first", patience(world))
    for other in others:
        other.join(30)
    assert met == [True, True]


def test_a_single_pod_listens_on_loopback_only() -> None:
    world = World(nodes=1, processes=2, port=free_port())
    store = rendezvous._open_store(world, 0)
    listening = [
        line.split()[1] for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()
    ]
    mine = [address for address in listening if address.endswith(f":{world.port:04X}")]
    assert mine
    assert all(address.startswith("0100007F:") for address in mine)
    del store


@pytest.mark.parametrize(
    ("environment", "rank"), [({}, 0), ({INDEX_VARIABLE: "2"}, 16), ({INDEX_VARIABLE: "1", PROCESS_VARIABLE: "3"}, 11)]
)
def test_the_rank_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], rank: int
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    world = World(nodes=4, processes=8)
    assert Rank.from_environment().of(world) == rank
    assert in_leading_pod(world) == (rank < 8)
    assert in_leading_pod(None)


def test_a_single_process_has_no_rank_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "7")
    clear_environment()
    assert not set(VARIABLES) & set(os.environ)


def test_a_group_of_one_needs_no_store() -> None:
    assert ALONE.any(True, False) == (True, False)
    assert ALONE.broadcast({"step": 3}) == {"step": 3}
    assert ALONE.gather(b"state") == [b"state"]
    assert ALONE.is_leader
    assert ALONE.is_pod_leader


def test_a_variable_that_hides_the_device_of_a_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(RunFailure, match="CUDA_VISIBLE_DEVICES is '', which leaves no device for process 1") as failure:
        rendezvous._select_device(Accelerator.NVIDIA, 1)
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert failure.value.hint == "remove CUDA_VISIBLE_DEVICES from spec.pod.env"
