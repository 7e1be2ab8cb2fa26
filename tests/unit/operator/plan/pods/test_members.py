"""The pods of one Job as a group."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.plan.world import START, condition, ended, running, waiting
from tunesmith_api.failures import SECONDARY_RANK, FailureClass
from tunesmith_api.status import LastFailure
from tunesmith_operator.plan.pods.members import (
    completion_index,
    current_members,
    has_started,
    leader,
    pod_count,
    root_cause,
    with_placement,
)
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Raw

INDEX = "batch.kubernetes.io/job-completion-index"
INDEXED: Raw = {"spec": {"completions": 3}}
UNSCHEDULABLE = LastFailure(class_=FailureClass.UNSCHEDULABLE, message="no node fits", hint="add a node")


def pod(index: str | None = None, created: int = 0, deleting: bool = False, **status: Any) -> Raw:
    metadata: Raw = {"name": f"{index}-{created}", "creationTimestamp": format_time(START + timedelta(seconds=created))}
    if index is not None:
        metadata["annotations"] = {INDEX: index}
    if deleting:
        metadata["deletionTimestamp"] = format_time(START)
    return {"metadata": metadata, "spec": {"containers": [{"name": "train"}]}, "status": status}


def test_a_plain_job_has_one_pod_and_its_pod_is_the_leader() -> None:
    alone = pod()
    assert pod_count({"spec": {}}) == 1
    assert pod_count(INDEXED) == 3
    assert completion_index(alone) == 0
    assert leader([alone]) is alone


@pytest.mark.parametrize(("text", "index"), [("2", 2), ("", 0), ("first", 0)])
def test_an_index_that_is_no_number_counts_as_the_first(text: str, index: int) -> None:
    assert completion_index(pod(text)) == index


def test_a_job_without_pod_0_has_no_leader() -> None:
    assert leader([pod("1"), pod("2")]) is None


@pytest.mark.parametrize(
    ("state", "started"), [(waiting("ContainerCreating"), False), (running(), True), (ended(), True)]
)
def test_a_pod_has_started_once_a_container_has_run(state: Raw, started: bool) -> None:
    assert has_started(pod(containerStatuses=[{"name": "train", "state": state}])) is started


def test_the_message_counts_the_pods_that_have_a_node() -> None:
    pods = [pod("0", startTime=format_time(START)), pod("1", conditions=[condition("PodScheduled")]), pod("2")]
    found = with_placement(INDEXED, pods, UNSCHEDULABLE)
    assert found is not None
    assert found.message == "2 of 3 pods are placed: no node fits"
    assert with_placement({"spec": {}}, pods[:1], UNSCHEDULABLE) is UNSCHEDULABLE
    assert with_placement(INDEXED, pods, None) is None


@given(
    st.lists(
        st.builds(
            lambda class_, seconds: LastFailure(
                class_=class_, message="x", time=format_time(START + timedelta(seconds=seconds)) if seconds else None
            ),
            st.sampled_from(FailureClass),
            st.integers(0, 9),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_root_cause_is_the_earliest_of_the_least_secondary_failures(failures: list[LastFailure]) -> None:
    cause = root_cause(failures)
    assert cause in failures
    rank = min(SECONDARY_RANK.get(failure.class_, 0) for failure in failures)
    primary = [failure for failure in failures if SECONDARY_RANK.get(failure.class_, 0) == rank]
    assert cause in primary
    assert (cause.time or "~") == min(failure.time or "~" for failure in primary)


@given(count=st.integers(1, 6), order=st.randoms())
def test_the_newest_pod_of_each_index_counts_in_any_order_of_the_list(count: int, order: Any) -> None:
    pods = [pod(str(index), made, deleting=made < 2) for index in range(count) for made in range(3)]
    order.shuffle(pods)
    assert [pod["metadata"]["name"] for pod in current_members(pods)] == [f"{index}-2" for index in range(count)]


def test_a_pod_that_is_being_deleted_counts_until_it_is_replaced() -> None:
    stopping, replacement = pod("0", created=9, deleting=True), pod("0", created=1)
    assert current_members([stopping]) == (stopping,)
    assert current_members([stopping, replacement]) == (replacement,)
