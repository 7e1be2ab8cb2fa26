"""Why the cluster took a pod away."""

from __future__ import annotations

import pytest

from tests.unit.operator.plan.failures.pods import disrupted, pod
from tests.unit.operator.plan.world import TUNED, ended
from tunesmith_api.failures import FailureClass
from tunesmith_operator.plan.failures.pod_disruption import disruption_failure
from tunesmith_operator.plan.types import Raw

FETCHED = {"fetch": TUNED["fetch"]}

DISRUPTIONS: dict[str, tuple[Raw, FailureClass, str]] = {
    "the scheduler preempts": (
        pod(states={**FETCHED, "train": ended(137)}, conditions=disrupted("PreemptionByScheduler")),
        FailureClass.PREEMPTED,
        "PreemptionByScheduler",
    ),
    "a node is drained": (
        pod(states={**FETCHED, "train": ended(137)}, conditions=disrupted("EvictionByEvictionAPI")),
        FailureClass.PREEMPTED,
        "EvictionByEvictionAPI",
    ),
    "a node is lost": (
        pod(states={**FETCHED, "train": ended(137)}, conditions=disrupted("DeletionByTaintManager")),
        FailureClass.NODE_LOST,
        "DeletionByTaintManager",
    ),
    "a node is short of disk": (
        pod(reason="Evicted", message="The node was low on resource: ephemeral-storage."),
        FailureClass.EVICTED,
        "ephemeral-storage",
    ),
    "a node shuts down": (
        pod(reason="Terminated", message="Pod was terminated in response to imminent node shutdown."),
        FailureClass.NODE_LOST,
        "shutdown",
    ),
    "the kubelet has no room for the pod": (
        pod(reason="OutOfcpu", message="Pod was rejected: Node didn't have enough resource: cpu"),
        FailureClass.NODE_REFUSED,
        "enough resource: cpu",
    ),
}


@pytest.mark.parametrize("case", DISRUPTIONS)
def test_the_disruption_of_a_pod_is_classified(case: str) -> None:
    thing, class_, words = DISRUPTIONS[case]
    failure = disruption_failure(thing)
    assert failure
    assert failure.class_ is class_
    assert words in failure.message


def test_a_pod_that_ends_by_itself_is_not_disrupted() -> None:
    assert disruption_failure(pod(states={**FETCHED, "train": ended(1)})) is None


def test_the_reason_of_the_pod_ranks_before_its_condition() -> None:
    """The kubelet's condition is TerminationByKubelet both for an eviction and for a shutdown of its node."""
    thing = pod(reason="Terminated", message="node shutdown", conditions=disrupted("TerminationByKubelet"))
    failure = disruption_failure(thing)
    assert failure
    assert failure.class_ is FailureClass.NODE_LOST
