"""Why the cluster took a pod away: eviction, preemption, a lost node, a kubelet that rejected the pod.

Sources: `status.reason` of the pod, and its condition DisruptionTarget (Pod v1).
"""

from __future__ import annotations

from tunesmith_api.failures import FailureClass
from tunesmith_api.status import LastFailure
from tunesmith_operator.plan.failures import cluster_messages
from tunesmith_operator.plan.failures.hints import hint_values
from tunesmith_operator.plan.failures.last_failure import pod_failure
from tunesmith_operator.plan.names import name_of
from tunesmith_operator.plan.pods.read import condition
from tunesmith_operator.plan.types import Raw

POD_REASONS: dict[str, FailureClass] = {
    "Evicted": FailureClass.EVICTED,
    "Preempting": FailureClass.PREEMPTED,
    "NodeLost": FailureClass.NODE_LOST,
    "NodeShutdown": FailureClass.NODE_LOST,
    "Shutdown": FailureClass.NODE_LOST,
    "Terminated": FailureClass.NODE_LOST,
    "DeadlineExceeded": FailureClass.DEADLINE_EXCEEDED,
}
"""`status.reason` of a failed pod. It is more exact than the condition, which is TerminationByKubelet for all of them."""
DISRUPTIONS: dict[str, FailureClass] = {
    "PreemptionByScheduler": FailureClass.PREEMPTED,
    "EvictionByEvictionAPI": FailureClass.PREEMPTED,
    "DeletionByTaintManager": FailureClass.NODE_LOST,
    "DeletionByPodGC": FailureClass.NODE_LOST,
    "TerminationByKubelet": FailureClass.EVICTED,
}
"""Reasons of the pod condition DisruptionTarget."""
REJECTED = "Pod was rejected: "
"""Beginning of `status.message` of a pod that the kubelet of its node did not admit, whatever the reason."""
HINT_ROWS = {
    FailureClass.EVICTED: cluster_messages.EVICTION,
    FailureClass.NODE_REFUSED: cluster_messages.REJECTION,
}


def disruption_failure(pod: Raw) -> LastFailure | None:
    """Return why the cluster ended a pod; None if it did not."""
    target, status = condition(pod, "DisruptionTarget"), pod.get("status") or {}
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    class_ = POD_REASONS.get(reason)
    if class_ is None and (message.startswith(REJECTED) or reason.startswith("OutOf")):
        class_ = FailureClass.NODE_REFUSED
    if class_ is None and target.get("status") == "True":
        class_ = DISRUPTIONS.get(str(target.get("reason")))
    if class_ is None:
        return None
    text = message or str(target.get("message") or reason)
    known = cluster_messages.interpret(HINT_ROWS.get(class_, ()), text, hint_values(pod))
    return pod_failure(
        pod,
        (known.class_ if known else None) or class_,
        f"pod {name_of(pod)}: {text.strip()}",
        known.hint if known else None,
        time=target.get("lastTransitionTime"),
    )
