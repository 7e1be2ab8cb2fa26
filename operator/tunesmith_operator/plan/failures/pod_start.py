"""What keeps a pod from starting: scheduling, images, missing Secrets, volumes, a slow node.

Sources: the condition PodScheduled, the reasons of waiting containers (Pod v1), and Events for the troubles that a pod's
status does not show.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from tunesmith_api.failures import FailureClass
from tunesmith_api.status import LastFailure
from tunesmith_api.symptoms import find_symptom
from tunesmith_operator.plan.failures import cluster_messages
from tunesmith_operator.plan.failures.events import event_time, latest_event
from tunesmith_operator.plan.failures.hints import hint_values
from tunesmith_operator.plan.failures.last_failure import container_failure, pod_failure
from tunesmith_operator.plan.names import name_of
from tunesmith_operator.plan.pods.read import Container, condition, containers, describe
from tunesmith_operator.plan.times import parse_time
from tunesmith_operator.plan.types import Raw

SLOW_START = timedelta(seconds=20)
"""A pod on a node without a running container after this time has a trouble that only Events show."""

WAITING_REASONS: dict[str, FailureClass] = {
    "ErrImagePull": FailureClass.IMAGE_PULL,
    "ImagePullBackOff": FailureClass.IMAGE_PULL,
    "InvalidImageName": FailureClass.IMAGE_PULL,
    "ErrImageNeverPull": FailureClass.IMAGE_PULL,
    "ImageInspectError": FailureClass.IMAGE_PULL,
    "RegistryUnavailable": FailureClass.IMAGE_PULL,
    "SignatureValidationFailed": FailureClass.IMAGE_PULL,
    "CreateContainerConfigError": FailureClass.POD_START,
    "CreateContainerError": FailureClass.POD_START,
    "PreCreateHookError": FailureClass.POD_START,
    "RunContainerError": FailureClass.POD_START,
    "PreStartHookError": FailureClass.POD_START,
    "PostStartHookError": FailureClass.POD_START,
}
EVENT_REASONS: dict[str, FailureClass] = {
    "FailedMount": FailureClass.POD_START,
    "FailedAttachVolume": FailureClass.POD_START,
    "FailedCreatePodSandBox": FailureClass.POD_START,
}
STEPS: dict[str, str] = {
    "Scheduled": "is getting its volumes and network",
    "SuccessfulAttachVolume": "is getting its volumes and network",
    "Pulling": "is pulling the image{image}",
    "Pulled": "has pulled the image{image} and is creating the container",
    "Created": "is starting the container",
}
"""Reasons of the Events by which scheduler, attach controller and kubelet report the progress of a starting pod."""
IMAGE = re.compile(r'image "([^"]+)"')
WRAPPED_PULL = re.compile(r'^(?:Back-off pulling image "[^"]*": \w+: )?(?:rpc error: code = \w+ desc = )?')
"""Text before the cause in the kubelet's message about a failed pull."""
PREEMPTION = re.compile(r"[.,]?(?: no new claims to deallocate,)? preemption:")
"""After this the scheduler's message explains only why preempting other pods would not help."""


def pending_failure(pod: Raw, events: Sequence[Raw]) -> LastFailure | None:
    """Return what keeps a pod from starting; None if nothing is known to."""
    return _scheduling_failure(pod) or _waiting_failure(pod) or _event_failure(pod, events)


def start_progress(pod: Raw, events: Sequence[Raw]) -> str | None:
    """Return what a pod on a node has been doing longer than usual before its first container runs.

    It comes from the kubelet's latest Event; None without such an Event, and for a pod that starts in time.
    """
    latest = latest_event(pod, events, STEPS)
    if not latest or slow_after(pod) is None:
        return None
    found = IMAGE.search(str(latest.get("message") or ""))
    step = STEPS[latest["reason"]].format(image=f" {found[1]}" if found else "")
    node = (pod.get("spec") or {}).get("nodeName") or "unknown"
    return f"pod {name_of(pod)} on node {node} {step}, since {event_time(latest)}"


def is_slow_to_start(pod: Raw, now: datetime) -> bool:
    """Whether a pod has been on its node for longer than usual without a running container."""
    slow = slow_after(pod)
    return slow is not None and now > slow


def slow_after(pod: Raw) -> datetime | None:
    """Return when a pod on a node counts as slow; None if a container has run, or its status shows what it lacks."""
    started = parse_time((pod.get("status") or {}).get("startTime"))
    is_waiting = all(container.waiting and not container.terminated for container in containers(pod))
    return started + SLOW_START if started is not None and is_waiting and not _waiting_failure(pod) else None


def start_failure(pod: Raw, container: Container, message: str, cause: str) -> LastFailure:
    """Return the failure of a container that its node cannot start: something is missing, or a device or driver fails."""
    known, symptom = cluster_messages.interpret(cluster_messages.STARTING, cause, hint_values(pod)), find_symptom(cause)
    if symptom and symptom.class_ is FailureClass.DEVICE_FAILED:
        return container_failure(pod, container, FailureClass.DEVICE_FAILED, message)
    class_ = (known.class_ if known else None) or FailureClass.POD_START
    return container_failure(pod, container, class_, message, known.hint if known else None)


def _scheduling_failure(pod: Raw) -> LastFailure | None:
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") != "False":
        return None
    if scheduled.get("reason") == "SchedulingGated":
        return _gated(pod, scheduled)
    if scheduled.get("reason") != "Unschedulable":
        return None
    text = PREEMPTION.split(str(scheduled.get("message") or "no node fits"))[0].strip(" .,")
    lacking = sorted(set(re.findall(r"Insufficient ([\w./-]+[\w])", text)))
    amounts = "; ".join(f"no node has enough {name} (the pod requests {_requested(pod, name)})" for name in lacking)
    message = f"{amounts}: {text}" if amounts else text
    known = cluster_messages.interpret_all(cluster_messages.SCHEDULING, text, hint_values(pod))
    class_ = (known.class_ if known else None) or FailureClass.UNSCHEDULABLE
    return pod_failure(pod, class_, message, known.hint if known else None, time=scheduled.get("lastTransitionTime"))


def _gated(pod: Raw, scheduled: Raw) -> LastFailure:
    gates = ", ".join(str(gate.get("name")) for gate in (pod.get("spec") or {}).get("schedulingGates") or [])
    return pod_failure(
        pod,
        FailureClass.UNSCHEDULABLE,
        f"pod {name_of(pod)} is held by scheduling gates: {gates or 'unnamed'}",
        "wait until the controller that set the gates removes them, or ask its owner: a queue, or a webhook that mutates pods",
        time=scheduled.get("lastTransitionTime"),
    )


def _requested(pod: Raw, resource: str) -> str:
    requests = ((container.spec.get("resources") or {}).get("requests") or {} for container in containers(pod))
    return next((str(amounts[resource]) for amounts in requests if resource in amounts), "some")


def _waiting_failure(pod: Raw) -> LastFailure | None:
    for container in containers(pod):
        class_ = WAITING_REASONS.get(str(container.waiting.get("reason")))
        if class_:
            cause = str(container.waiting.get("message") or container.waiting.get("reason"))
            if class_ is FailureClass.IMAGE_PULL:
                return _pull_failure(pod, container, cause)
            return start_failure(pod, container, f"{describe(pod, container)}: cannot start: {cause}", cause)
    return None


def _pull_failure(pod: Raw, container: Container, message: str) -> LastFailure:
    """The kubelet alternates between two forms of one message, while it pulls and while it backs off: keep the common part."""
    cause = WRAPPED_PULL.sub("", message)
    known = cluster_messages.interpret(cluster_messages.PULLING, cause, hint_values(pod))
    text = f"{describe(pod, container)}: image {container.spec.get('image')}: {cause}"
    return pod_failure(pod, FailureClass.IMAGE_PULL, text, known.hint if known else None, container=container.name)


def _event_failure(pod: Raw, events: Sequence[Raw]) -> LastFailure | None:
    latest = latest_event(pod, events, EVENT_REASONS)
    if not latest:
        return None
    cause = str(latest.get("message") or latest["reason"])
    known = cluster_messages.interpret(cluster_messages.STARTING, cause, hint_values(pod))
    class_ = (known.class_ if known else None) or EVENT_REASONS[latest["reason"]]
    return pod_failure(pod, class_, f"pod {name_of(pod)}: {cause}", known.hint if known else None)
