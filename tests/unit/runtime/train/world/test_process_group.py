"""A process group as each of its processes sees it."""

from __future__ import annotations

import threading

import pytest
from torch.distributed import HashStore

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.world.process_group import ALONE, ProcessGroup


def test_the_leader_of_a_pod_is_through_a_block_before_its_other_processes_enter() -> None:
    store, order = HashStore(), []
    leader, follower = ProcessGroup(2, 4, 0, store), ProcessGroup(3, 4, 1, store)

    def follow() -> None:
        with follower.pod_leader_first():
            order.append("follower")

    waiting = threading.Thread(target=follow)
    with leader.pod_leader_first():
        waiting.start()
        waiting.join(timeout=0.5)
        order.append("leader")
    waiting.join(timeout=30)
    assert order == ["leader", "follower"]


def test_every_process_gets_what_all_share() -> None:
    store = HashStore()
    found: dict[int, list[list[bytes]]] = {}

    def share(rank: int) -> None:
        group = ProcessGroup(rank, 3, rank, store)
        found[rank] = [group.share(f"{turn} of {rank}".encode()) for turn in range(2)]

    processes = [threading.Thread(target=share, args=(rank,)) for rank in range(3)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(timeout=30)
    expected = [[f"{turn} of {rank}".encode() for rank in range(3)] for turn in range(2)]
    assert found == dict.fromkeys(range(3), expected)
    assert store.num_keys() == 0  # nothing stays in the memory of the leader
    assert ALONE.share(b"own") == [b"own"]


def test_the_leaders_of_two_pods_and_a_process_on_its_own_wait_for_nobody() -> None:
    store = HashStore()
    for group in (ProcessGroup(2, 4, 0, store), ProcessGroup(0, 4, 0, store), ALONE):
        with group.pod_leader_first():
            assert group.is_pod_leader


def test_the_leader_keeps_the_store_until_all_have_read_that_its_check_failed() -> None:
    store, ended = HashStore(), []

    def fail() -> None:
        raise RunFailure(FailureClass.NOTHING_LEARNED, "no weight changed")

    def check(rank: int) -> None:
        with pytest.raises(RunFailure, match="no weight changed"):
            ProcessGroup(rank, 2, rank, store).check_in_leader(fail)
        ended.append(rank)

    leader, follower = (threading.Thread(target=check, args=(rank,)) for rank in range(2))
    leader.start()
    leader.join(timeout=0.5)
    assert leader.is_alive()
    follower.start()
    for each in (follower, leader):
        each.join(timeout=30)
    assert sorted(ended) == [0, 1]
