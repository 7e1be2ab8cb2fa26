"""Containers of a pod and the reports that they left."""

from __future__ import annotations

import pytest

from tests.unit.operator.plan.failures.pods import pod
from tests.unit.operator.plan.world import TUNED, ended, report, running
from tunesmith_operator.plan.pods.read import condition, containers, is_finished, is_true, parse_report, reports


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '{"verb": "dance", "outcome": "Failed"}', "x\n{'a': 1}"])
def test_a_message_that_is_no_report_is_none(text: str) -> None:
    assert parse_report(text) is None


def test_a_report_is_found_in_the_last_line_of_a_log() -> None:
    """The kubelet falls back to the log if a container writes no termination message."""
    found = parse_report("Traceback\n" + report("train"))
    assert found
    assert found.verb == "train"


def test_a_result_without_a_number_is_left_out_of_the_report() -> None:
    results = [{"benchmark": "a", "metric": "accuracy", "value": value} for value in (0.5, None)]
    found = parse_report(report("evaluate", results=results).replace("0.5", "NaN"))
    assert found
    assert not found.results


def test_containers_are_listed_in_the_order_in_which_they_start() -> None:
    thing = pod("Running", {"fetch": TUNED["fetch"], "train": running()})
    assert [container.name for container in containers(thing)][:2] == ["fetch", "train"]
    assert [container.is_over for container in containers(thing)][:2] == [True, False]
    assert set(reports(thing)) == {"fetch"}


def test_a_restarted_container_keeps_the_exit_code_of_its_previous_run() -> None:
    state = {"state": running(), "lastState": ended(71), "restartCount": 1}
    train = next(container for container in containers(pod("Running", {"train": state})) if container.name == "train")
    assert (train.exit_code, train.is_over, train.restarts) == (71, False, 1)


def test_a_pod_without_status_is_pending_and_has_no_conditions() -> None:
    assert not is_finished({})
    assert condition({}, "PodScheduled") == {}
    assert not is_true({}, "PodScheduled")
