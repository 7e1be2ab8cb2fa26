"""Processes meet however late they come, and give up early only where packets are lost."""

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
from tunesmith_api.run import INDEX_VARIABLE, World
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.rank import PROCESS_VARIABLE, Rank, in_leading_pod
from tunesmith_runtime.train import rendezvous
from tunesmith_runtime.train.process_group import ALONE
from tunesmith_runtime.train.rendezvous import VARIABLES, AlreadyTrained, Patience, _connect, _meet, clear_environment


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(rendezvous, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(rendezvous, "TRAINED_POLL_SECONDS", 0.1)


def patience(world: World) -> Patience:
    return Patience(world, lambda: False)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that answers nothing: its queue of connections is full, so packets are dropped as by a network policy."""
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


def test_a_pod_that_lets_no_packet_through_is_told_of_with_the_policy_to_mend(silent: int) -> None:
    world = World(nodes=2, port=silent, unreachable_seconds=0.3)
    with pytest.raises(RunFailure, match="let no packet through") as failure:
        _connect(world, patience(world))
    assert failure.value.failure is FailureClass.COLLECTIVE_FAILED
    assert "network policies" in str(failure.value.hint)


@pytest.mark.parametrize("host", ["127.0.0.1", "support-tune-1-0.not-there.invalid"])
def test_a_pod_without_an_address_or_that_still_fetches_is_waited_for(host: str) -> None:
    """Long past the time after which silence would be a failure, until the rendezvous as a whole is too late."""
    world = World(nodes=2, host=host, port=free_port(), unreachable_seconds=0.05, rendezvous_seconds=1)
    with pytest.raises(RunFailure, match="did not meet within 1 s") as failure:
        _connect(world, patience(world))
    assert failure.value.failure is FailureClass.COLLECTIVE_FAILED


def test_the_last_may_come_late() -> None:
    world = World(nodes=3, port=free_port())
    met: list[int] = []

    def come(rank: int) -> None:
        _meet(world, rank, patience(world))
        met.append(rank)

    others = [threading.Thread(target=come, args=(rank,), daemon=True) for rank in (1, 2)]
    for other in others:
        other.start()
    time.sleep(0.5)
    assert met == []
    store = _meet(world, 0, patience(world))
    for other in others:
        other.join(30)
    assert sorted(met) == [1, 2]
    del store


def test_who_does_not_come_is_counted_by_pod_0_which_needs_no_name_to_reach_itself() -> None:
    world = World(nodes=3, host="support-tune-1-0.not-there.invalid", port=free_port(), rendezvous_seconds=0.3)
    with pytest.raises(RunFailure, match="1 of 3 processes have joined"):
        _meet(world, 0, patience(world))


@pytest.mark.parametrize("rank", [0, 1])
def test_who_has_nothing_left_to_do_waits_for_nobody_that_does_not_come(rank: int) -> None:
    """Process 1 where process 0 cannot be reached. The store may be out of reach for a while: that is no failure yet."""

    def is_done() -> bool:
        looks.append(rank)
        if len(looks) == 1:
            raise RunFailure(FailureClass.STORAGE_UNREACHABLE, "503")
        return len(looks) == 3

    looks: list[int] = []
    world = World(nodes=2, port=free_port(), rendezvous_seconds=60)
    with pytest.raises(AlreadyTrained):
        _meet(world, rank, Patience(world, is_done))
    assert len(looks) == 3


def test_only_process_0_gives_up_waiting_and_the_others_follow_it() -> None:
    """Each for itself would split the world: one has left, the next sees its place and begins with it."""
    world = World(nodes=3, port=free_port(), rendezvous_seconds=60)
    left: list[int] = []
    trained = threading.Event()

    def come(rank: int) -> None:
        try:
            _meet(world, rank, Patience(world, lambda: rank == 1 or trained.is_set()))
        except AlreadyTrained:
            left.append(rank)

    leader = threading.Thread(target=come, args=(0,), daemon=True)
    leader.start()
    with socket.socket() as probe:
        while probe.connect_ex((world.host, world.port)):
            time.sleep(0.01)
    other = threading.Thread(target=come, args=(1,), daemon=True)
    other.start()
    time.sleep(0.5)
    assert left == []
    trained.set()
    for each in (leader, other):
        each.join(30)
    assert left == [0, 1]


def test_a_new_pod_waits_for_the_successor_of_a_pod_0_that_is_about_to_go() -> None:
    """A queue has stopped the pods of a Job and let it start again: names are the same, the old world is complete."""
    from torch.distributed import TCPStore

    world = World(nodes=2, port=free_port())
    old = TCPStore("127.0.0.1", world.port, 2, is_master=True, wait_for_workers=False)
    for rank in range(2):
        old.set(f"joined/{rank}", "of an earlier start")
    met = threading.Event()

    def come() -> None:
        _meet(world, 1, patience(world))
        met.set()

    threading.Thread(target=come, daemon=True).start()
    assert not met.wait(1.0)
    del old
    store = _meet(world, 0, patience(world))
    assert met.wait(30)
    del store


def test_who_comes_again_after_a_broken_connection_is_not_counted_twice() -> None:
    world = World(nodes=3, port=free_port(), rendezvous_seconds=30)
    store = rendezvous._open_store(world, 0)
    for _ in range(2):  # with the connections of the first time lost
        rendezvous._open_store(world, 1).compare_set("joined/1", "", "second")
    assert not store.check(["joined/0", "joined/1", "joined/2"])
    met: list[bool] = []

    def come(rank: int, me: str) -> None:
        met.append(rendezvous._all_have_joined(rendezvous._open_store(world, rank), world, rank, me, patience(world)))

    others = [threading.Thread(target=come, args=each, daemon=True) for each in ((1, "second"), (2, "third"))]
    for other in others:
        other.start()
    time.sleep(0.3)
    assert met == []
    assert rendezvous._all_have_joined(store, world, 0, "first", patience(world))
    for other in others:
        other.join(30)
    assert met == [True, True]


def test_one_pod_opens_no_port_to_others() -> None:
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
def test_a_process_knows_its_place(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], rank: int) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    world = World(nodes=4, processes=8)
    assert Rank.from_environment().of(world) == rank
    assert in_leading_pod(world) == (rank < 8)
    assert in_leading_pod(None)


def test_one_process_alone_is_not_taken_for_one_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "7")
    clear_environment()
    assert not set(VARIABLES) & set(os.environ)


def test_alone_everybody_agrees() -> None:
    assert ALONE.any(True, False) == (True, False)
    assert ALONE.broadcast({"step": 3}) == {"step": 3}
    assert ALONE.gather(b"state") == [b"state"]
    assert ALONE.is_leader
    assert ALONE.is_pod_leader
