"""What happens to a job in a cluster, as functions that change a `Cluster`.

The messages are those of Kubernetes 1.36 (kubelet, scheduler, controllers, admission), containerd, CUDA, NCCL and CANN.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from tests.unit.operator.plan.world import (
    TUNED,
    Cluster,
    condition,
    ended,
    failed_report,
    fine_tune_job,
    waiting,
)
from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Raw

FETCHED = {"fetch": TUNED["fetch"]}
LOG = "12:00:01 step 12\n12:00:02 the end of the log"
"""Termination message of a container that fails and leaves none (FallbackToLogsOnError)."""
POD = "support-tune-1-x7k2p"
JOB = "support-tune-1"

Happening = Callable[[Cluster], None]


def ends(states: Raw, **status: object) -> Happening:
    """The pod fails."""
    return lambda cluster: cluster.fail(JOB, states, conditions=_conditions(states), **status)


def _conditions(states: Raw) -> list[Raw]:
    """The conditions that the kubelet sets on a failed pod."""
    begun = set(states) - {"fetch"}
    return [
        condition("PodReadyToStartContainers", False),
        condition("Initialized", "export" in begun, "" if "export" in begun else "ContainersNotInitialized"),
        condition("Ready", False, "PodFailed"),
        condition("ContainersReady", False, "PodFailed"),
        condition("PodScheduled", True),
    ]


def trains(code: int, message: str = LOG, reason: str | None = None) -> Happening:
    """The container train ends with `code`."""
    return ends({**FETCHED, "train": ended(code, message, reason)})


def fetches(code: int, message: str = LOG, reason: str | None = None) -> Happening:
    """The container fetch ends with `code`."""
    return ends({"fetch": ended(code, message, reason)})


def exports(code: int, message: str = LOG) -> Happening:
    """The container export ends with `code`."""
    return ends({**FETCHED, "train": TUNED["train"], "export": ended(code, message)})


def report_with_log(verb: str, class_: FailureClass, message: str, log: str = LOG) -> str:
    """The report of a container that failed, with the end of its log."""
    return failed_report(verb, class_, message, logTail=log)


def reports(verb: str, class_: FailureClass, message: str) -> Happening:
    """The container reports its failure, and exits with the code of the class."""
    payload = report_with_log(verb, class_, message)
    happens = {"fetch": fetches, "train": trains, "export": exports}[verb]
    return happens(FAILURES[class_].exit_code or 1, payload)


def waits(reason: str, message: str) -> Happening:
    """The pod is scheduled, and its first container does not start."""

    def happens(cluster: Cluster) -> None:
        pod = cluster.start_pod(JOB, "Pending", {"fetch": waiting(reason, message)})
        pod["spec"] = {**pod["spec"], "nodeName": "node-1"}

    return happens


def unschedulable(message: str) -> Happening:
    """The scheduler finds no node."""

    def happens(cluster: Cluster) -> None:
        pod = cluster.start_pod(JOB, "Pending", conditions=[condition("PodScheduled", False, "Unschedulable", message)])
        del pod["status"]["startTime"]

    return happens


def warning_event(kind: str, name: str, reason: str, message: str) -> Raw:
    """A Warning Event of core/v1."""
    return {
        "involvedObject": {"kind": kind, "name": name},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": format_time(Cluster(fine_tune_job()).now),
    }


def stands_still(reason: str, message: str) -> Happening:
    """The pod is scheduled, none of its containers starts, and only an Event states the cause."""

    def happens(cluster: Cluster) -> None:
        cluster.start_pod(JOB, "Pending")
        cluster.kubernetes_events.append(warning_event("Pod", POD, reason, message))
        cluster.now += timedelta(minutes=1)

    return happens


def gets_no_pod(message: str) -> Happening:
    """The Job controller can't create the pod."""
    event = warning_event("Job", JOB, "FailedCreate", f"Error creating: {message}")
    return lambda cluster: cluster.kubernetes_events.append(event)


def rejected(reason: str, message: str) -> Happening:
    """The kubelet rejects the pod."""

    def happens(cluster: Cluster) -> None:
        pod = cluster.start_pod(JOB, "Failed", reason=reason, message=f"Pod was rejected: {message}")
        for statuses in ("initContainerStatuses", "containerStatuses"):
            del pod["status"][statuses]
        cluster.end_job(JOB, "Failed")

    return happens


def evicted(message: str) -> Happening:
    """The kubelet evicts the pod, and sets the condition that all its evictions have."""
    target = condition("DisruptionTarget", True, "TerminationByKubelet", message)
    states = {**FETCHED, "train": ended(137, LOG)}
    return lambda cluster: cluster.fail(JOB, states, reason="Evicted", message=message, conditions=[target])


def disrupted(by: str, cause: str, **status: object) -> Happening:
    """The pod is disrupted, not by the kubelet."""
    states = {**FETCHED, "train": ended(137, LOG)}
    target = condition("DisruptionTarget", True, by, cause)
    return lambda cluster: cluster.fail(JOB, states, conditions=[target], **status)


def evaluates(serve: Raw, evaluate: Raw) -> Happening:
    """The pod of an evaluation fails, perhaps because of its engine."""

    def happens(cluster: Cluster) -> None:
        cluster.fail("support-eval-model-1", {**FETCHED, "serve": serve, "evaluate": evaluate})

    return happens


def crashes(last: Raw, restarts: int = 4) -> Happening:
    """The engine of an evaluation crashes repeatedly."""

    def happens(cluster: Cluster) -> None:
        state = {"state": waiting("CrashLoopBackOff", "back-off 40s"), "lastState": last, "restartCount": restarts}
        conditions = [condition("Initialized", False, "ContainersNotInitialized")]
        cluster.start_pod("support-eval-model-1", "Pending", {**FETCHED, "serve": state}, conditions=conditions)

    return happens


def pull(cause: str) -> str:
    """The kubelet's message during the backoff of a pull."""
    return f'Back-off pulling image "registry/runtime:1": ErrImagePull: rpc error: code = Unknown desc = {cause}'
