"""What keeps a pod from starting."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.operator.plan.failures.pods import event, pod
from tests.unit.operator.plan.world import (
    Cluster,
    condition,
    fine_tune_job,
    running,
    waiting,
)
from tunesmith_api.failures import FailureClass
from tunesmith_operator.plan.failures.pod_start import pending_failure
from tunesmith_operator.plan.types import Raw

SCHEDULING = (
    "0/3 nodes are available: 1 node(s) had untolerated taint {gpu: yes}, 2 Insufficient nvidia.com/gpu. "
    "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
)


PENDING: dict[str, tuple[Raw, FailureClass, str, str]] = {
    "no node has the device": (
        pod("Pending", conditions=[condition("PodScheduled", False, "Unschedulable", SCHEDULING)]),
        FailureClass.UNSCHEDULABLE,
        "no node has enough nvidia.com/gpu (the pod requests 1): 0/3 nodes are available",
        "check that its device plugin runs there",
    ),
    "no node has the label": (
        pod("Pending", conditions=[condition("PodScheduled", False, "Unschedulable", "didn't match node selector")]),
        FailureClass.UNSCHEDULABLE,
        "didn't match node selector",
        "nodeSelector",
    ),
    "the image is not there": (
        pod("Pending", {"fetch": waiting("ImagePullBackOff", 'Back-off pulling image "registry/runtime:1"')}),
        FailureClass.IMAGE_PULL,
        "image registry/runtime:1: Back-off",
        "imagePullSecrets",
    ),
    "the credentials are not there": (
        pod("Pending", {"fetch": waiting("CreateContainerConfigError", 'secret "s3-credentials" not found')}),
        FailureClass.POD_START,
        'secret "s3-credentials" not found',
        "create Secret s3-credentials in namespace team",
    ),
    "a key of the credentials is not there": (
        pod(
            "Pending",
            {"fetch": waiting("CreateContainerConfigError", "couldn't find key AWS_ACCESS_KEY_ID in Secret team/s3")},
        ),
        FailureClass.POD_START,
        "couldn't find key",
        "add the key AWS_ACCESS_KEY_ID to Secret s3 in namespace team",
    ),
}


@pytest.mark.parametrize("case", PENDING)
def test_the_cause_of_a_pending_pod_is_found(case):
    thing, class_, words, hint = PENDING[case]
    failure = pending_failure(thing, ())
    assert failure
    assert failure.class_ is class_
    assert words in failure.message
    assert hint in failure.hint
    assert "Preemption is not helpful" not in failure.message


def test_a_pod_that_is_starting_has_no_failure():
    assert pending_failure(pod("Pending", {"fetch": running()}), ()) is None
    assert pending_failure(pod("Pending"), ()) is None


def test_a_volume_that_cannot_be_mounted_is_found_in_an_event():
    thing = pod("Pending")
    name = thing["metadata"]["name"]
    events = [
        event("Pod", name, "FailedMount", 'MountVolume.SetUp failed for volume "ca": configmap "s3-ca" not found', 5),
        event("Pod", name, "Scheduled", "assigned", 9),
        event("Pod", "another", "FailedMount", "not ours", 10),
    ]
    failure = pending_failure(thing, events)
    assert failure
    assert (failure.class_, failure.hint) == (
        FailureClass.POD_START,
        "create ConfigMap s3-ca in namespace team; the pod then starts by itself",
    )


@pytest.mark.parametrize(
    ("count", "advice"),
    [(1, ""), (2, ", or lower spec.resources.count to 1"), (8, ", or lower spec.resources.count to 4")],
)
def test_fewer_devices_are_proposed_if_the_pod_requests_several(count: int, advice: str) -> None:
    conditions = [condition("PodScheduled", False, "Unschedulable", "0/3 nodes: 3 Insufficient nvidia.com/gpu.")]
    resources = {"accelerator": "nvidia", "count": count}
    failure = pending_failure(pod("Pending", conditions=conditions, thing=fine_tune_job(resources=resources)), ())
    assert failure
    assert failure.hint.startswith(
        "free or add a node with nvidia.com/gpu, check that its device plugin runs there (kubectl describe node shows "
        f"nvidia.com/gpu under Allocatable){advice}"
    )
    assert ("spec.resources.count" in failure.hint) is (count > 1)


def test_a_pod_is_planned_again_when_it_becomes_slow():
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    cluster.start_pod("support-tune-1", "Pending", {"fetch": waiting("ContainerCreating")})
    assert cluster.plan().requeue_after == 21.0
    cluster.start_pod("support-tune-1", "Pending", {"fetch": waiting("ImagePullBackOff", "not found")})
    assert cluster.plan().requeue_after is None


def step(name: str, reason: str, message: str, at: int) -> Raw:
    return event("Pod", name, reason, message, at)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "waiting for the pod to be scheduled and its image to be pulled"),
        (
            [("Scheduled", "Successfully assigned team/p to node-1", 1)],
            "pod {pod} on node node-1 is getting its volumes and network, since 2026",
        ),
        (
            [("Scheduled", "assigned", 1), ("Pulling", 'Pulling image "registry/runtime:1"', 3)],
            "pod {pod} on node node-1 is pulling the image registry/runtime:1, since 2026",
        ),
        (
            [
                ("Pulling", 'Pulling image "registry/runtime:1"', 3),
                ("Pulled", 'Successfully pulled image "registry/runtime:1" in 40s (40s including waiting)', 43),
            ],
            "pod {pod} on node node-1 has pulled the image registry/runtime:1 and is creating the container, since 2026",
        ),
    ],
)
def test_status_shows_the_step_of_a_pod_that_starts_slowly(events: list[tuple[str, str, int]], message: str) -> None:
    """The same Event gives the same message in the next reconcile, which writes nothing."""
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    thing = cluster.start_pod("support-tune-1", "Pending", {"fetch": waiting("ContainerCreating")})
    thing["spec"] = {**thing["spec"], "nodeName": "node-1"}
    cluster.settle()
    before = cluster.status["message"]
    cluster.kubernetes_events.extend(step(thing["metadata"]["name"], *event) for event in events)
    cluster.now += timedelta(seconds=21)
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "WaitingForPod")
    assert message.format(pod=thing["metadata"]["name"]) in cluster.status["message"]
    assert cluster.status["message"].startswith(before)
    assert f"waiting for {cluster.status['waitingFor']}" == cluster.status["message"]
    cluster.now += timedelta(seconds=21)
    assert cluster.plan().status is None
    cluster.start_pod("support-tune-1", "Running", {"fetch": running()})
    cluster.settle()
    assert cluster.status["message"] == "fetching the model and the data"
    assert "waitingFor" not in cluster.status
