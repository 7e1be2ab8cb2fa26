"""Every class of failure, from the messages of a cluster to lastFailure in status."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.operator.plan.failures.failure_cases import CASES, Case
from tests.unit.operator.plan.failures.happenings import JOB, unschedulable, waits
from tests.unit.operator.plan.world import (
    Cluster,
    condition,
    ended,
    fine_tune_job,
    inference_service,
    waiting,
)
from tunesmith_api.failures import FAILURES, FailureClass, Retry
from tunesmith_api.symptoms import find_symptom
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Raw


def status_after(case: Case) -> Raw:
    """The status that the operator writes, held against the CRD's schema on the way."""
    cluster = Cluster(case.thing)
    cluster.begin()
    case.happens(cluster)
    cluster.settle()
    return cluster.status


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_status_has_the_cause_the_place_and_the_hint(case: Case) -> None:
    failure = status_after(case)["lastFailure"]
    assert (failure["class"], failure.get("pod"), failure.get("container"), failure.get("exitCode")) == (
        case.class_,
        case.pod,
        case.container,
        case.exit_code,
    )
    assert case.message in failure["message"]
    assert case.hint in failure["hint"]
    assert ("logTail" in failure) is case.has_log
    assert not case.has_log or case.tail in failure["logTail"]
    assert failure["time"]
    assert "{" not in failure["hint"], "every name of a hint is filled in"


def test_every_class_has_a_case() -> None:
    assert {case.class_ for case in CASES.values()} == set(FailureClass)


def test_the_two_alternating_messages_of_the_kubelet_are_shown_as_one() -> None:
    cause = "rpc error: code = NotFound desc = failed to pull and unpack image: not found"
    now = status_after(Case(FailureClass.IMAGE_PULL, waits("ErrImagePull", cause), "", ""))
    later = status_after(
        Case(
            FailureClass.IMAGE_PULL,
            waits("ImagePullBackOff", f'Back-off pulling image "a": ErrImagePull: {cause}'),
            "",
            "",
        )
    )
    assert now["message"] == later["message"]


def test_the_gates_of_a_gated_pod_are_named() -> None:
    def gated(cluster: Cluster) -> None:
        conditions = [
            condition("PodScheduled", False, "SchedulingGated", "Scheduling is blocked due to non-empty gates")
        ]
        pod = cluster.start_pod(JOB, "Pending", conditions=conditions)
        pod["spec"] = {**pod["spec"], "schedulingGates": [{"name": "example.com/quota"}]}

    assert "example.com/quota" in status_after(Case(FailureClass.UNSCHEDULABLE, gated, "", ""))["message"]


def test_a_spec_admitted_by_crds_of_another_version_is_refused_with_the_fix() -> None:
    cluster = Cluster(fine_tune_job(tuner="of-tomorrow"))
    cluster.settle()
    assert "spec.tuner: " in cluster.status["message"]
    assert "run helm upgrade" in cluster.status["message"]


def test_several_reasons_of_the_scheduler_give_several_hints() -> None:
    message = "0/5 nodes are available: 2 Insufficient cpu, 2 Insufficient memory, 3 node(s) had untolerated taint(s)."
    hint = status_after(Case(FailureClass.UNSCHEDULABLE, unschedulable(message), "", ""))["lastFailure"]["hint"]
    assert "spec.resources.cpu" in hint
    assert "spec.resources.memory" in hint
    assert "spec.pod.tolerations" in hint


def test_the_hint_has_the_command_for_the_log_if_only_the_log_has_the_cause() -> None:
    hint = status_after(CASES["a process ends with a traceback"])["lastFailure"]["hint"]
    assert hint.endswith("kubectl --namespace team logs support-tune-1-x7k2p --container train")
    hint = status_after(CASES["an engine does not come up"])["lastFailure"]["hint"]
    assert hint.endswith("kubectl --namespace team logs support-eval-model-1-x7k2p --container serve --previous")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_message_of_status_has_the_hint(case: Case) -> None:
    """Where it has failed for good, or waits; a new attempt that is under way has nothing to ask for."""
    status = status_after(case)
    if status["reason"] in (case.class_, "BackOff"):
        assert status["lastFailure"]["message"] in status["message"]
        assert status["lastFailure"]["hint"] in status["message"]
    if status["phase"] == "Failed" and case.pod:
        assert "delete the resource and apply it again" in status["message"]


def test_a_pod_over_its_own_limit_is_not_tried_again() -> None:
    case = CASES["the pod is over its own disk limit"]
    assert status_after(case)["phase"] == "Failed"
    assert FAILURES[FailureClass.DISK_FULL].retry is Retry.NEVER


def test_a_service_reports_the_cause_of_a_crashing_engine() -> None:
    """The log of an engine that is not ours, which ends with a plain 1."""
    cluster = Cluster(inference_service())
    cluster.settle()
    template = cluster.deployments["support"]["spec"]["template"]
    message = "ERROR 11-22 EngineCore failed to start.\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB\nbye"
    cluster.pods["support-abc-1"] = {
        "metadata": {**template["metadata"], "name": "support-abc-1", "namespace": "team", "uid": "u1"},
        "spec": template["spec"],
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "serve",
                    "restartCount": 2,
                    "state": waiting("CrashLoopBackOff"),
                    "lastState": ended(1, message),
                }
            ],
        },
    }
    cluster.settle()
    assert cluster.status["lastFailure"]["class"] == FailureClass.DEVICE_OUT_OF_MEMORY
    assert cluster.status["reason"] == FailureClass.DEVICE_OUT_OF_MEMORY


def service_pod(cluster: Cluster, name: str, phase: str, **status: object) -> None:
    """A pod of a service's present version, made now."""
    template = cluster.deployments["support"]["spec"]["template"]
    cluster.pods[name] = {
        "metadata": {
            **template["metadata"],
            "name": name,
            "namespace": "team",
            "uid": f"uid-of-{name}",
            "creationTimestamp": format_time(cluster.now),
        },
        "spec": template["spec"],
        "status": {"phase": phase, **status},
    }


def test_a_service_reports_why_its_pods_are_replaced_repeatedly() -> None:
    message = 'Usage of EmptyDir volume "work" exceeds the limit "20Gi". '
    cluster = Cluster(inference_service(resources={"ephemeralStorage": "20Gi"}))
    cluster.settle()
    target = condition("DisruptionTarget", True, "TerminationByKubelet", message, at=cluster.now)
    service_pod(cluster, "support-abc-1", "Failed", reason="Evicted", message=message, conditions=[target])
    cluster.now += timedelta(seconds=2)
    service_pod(cluster, "support-abc-2", "Pending")
    cluster.settle()
    assert cluster.status["reason"] == FailureClass.DISK_FULL
    assert "spec.resources.ephemeralStorage" in cluster.status["message"]
    del cluster.pods["support-abc-2"]
    cluster.now += timedelta(hours=1)
    service_pod(cluster, "support-abc-3", "Pending")
    cluster.settle()
    assert cluster.status["reason"] == "Starting", "a failure an hour ago is not the cause of this start"


@pytest.mark.parametrize(
    "text", ["", "all is well", "loss 0.5\ntokens/s 900", "ValueError: unexpected keyword argument"]
)
def test_a_log_without_a_known_symptom_gives_no_cause(text: str) -> None:
    assert find_symptom(text) is None
