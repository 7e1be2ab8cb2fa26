"""Facts of Jobs and their pods."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.operator.plan.world import START, condition
from tunesmith_operator.plan.jobs.read import (
    admitted_at,
    attempt_number,
    controls,
    ended_at,
    is_over,
    may_run,
)
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Raw


@pytest.mark.parametrize(
    ("metadata", "number"),
    [
        ({"name": "support-tune-3"}, 3),
        ({"name": "support-tune-3", "annotations": {"tunesmith.dev/attempt": "4"}}, 4),
        ({"name": "support"}, 0),
    ],
)
def test_the_number_of_an_attempt_is_in_its_annotation_or_else_in_its_name(metadata: Raw, number: int) -> None:
    assert attempt_number({"metadata": metadata}) == number


@pytest.mark.parametrize("type_", ["Failed", "FailureTarget", "Complete", "SuccessCriteriaMet"])
def test_a_job_with_a_terminal_condition_is_over(type_: str) -> None:
    job = {"status": {"conditions": [condition(type_, at=START)]}}
    assert is_over(job)
    assert ended_at(job) == START
    assert not is_over({"status": {"conditions": [condition(type_, False)]}})


def test_a_suspended_job_is_not_admitted_whatever_its_start_time() -> None:
    status = {"startTime": format_time(START)}
    assert admitted_at({"spec": {"suspend": False}, "status": status}) == START
    assert admitted_at({"spec": {"suspend": True}, "status": status}) is None


def test_only_the_controller_counts_as_the_owner_of_a_pod() -> None:
    owners = [{"uid": "a"}, {"uid": "b", "controller": True}]
    pod = {"metadata": {"ownerReferences": owners}}
    assert [controls({"metadata": {"uid": uid}}, pod) for uid in ("a", "b")] == [False, True]
    assert not controls({"metadata": {"uid": "b"}}, {"metadata": {}})


def test_a_pod_that_is_being_deleted_may_run_until_its_node_is_considered_lost() -> None:
    deletion = {"deletionTimestamp": format_time(START)}
    assert may_run({"metadata": {}, "status": {"phase": "Running"}}, START)
    assert may_run({"metadata": deletion, "status": {"phase": "Running"}}, START + timedelta(seconds=29))
    assert not may_run({"metadata": deletion, "status": {"phase": "Running"}}, START + timedelta(seconds=30))
    assert not may_run({"metadata": {}, "status": {"phase": "Failed"}}, START)
