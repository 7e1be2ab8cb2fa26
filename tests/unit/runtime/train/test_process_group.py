"""A process group as each of its processes sees it."""

from __future__ import annotations

import threading

from torch.distributed import HashStore

from tunesmith_runtime.train.process_group import ALONE, ProcessGroup


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


def test_the_leaders_of_two_pods_and_a_process_on_its_own_wait_for_nobody() -> None:
    store = HashStore()
    for group in (ProcessGroup(2, 4, 0, store), ProcessGroup(0, 4, 0, store), ALONE):
        with group.pod_leader_first():
            assert group.is_pod_leader
