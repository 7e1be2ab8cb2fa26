"""The PodDisruptionBudget of a service: drains and the like take one pod at a time."""

from __future__ import annotations

from tunesmith_api.inferenceservice import DisruptionBudget, InferenceServiceSpec
from tunesmith_operator.plan.names import child_metadata, name_of, selector
from tunesmith_operator.plan.types import Raw

KIND = "PodDisruptionBudget"


def is_budgeted(spec: InferenceServiceSpec) -> bool:
    """Whether there is to be one: a single pod is protected where that is asked for only, as no drain would end."""
    if spec.suspend or spec.replicas == 0:
        return False
    most = max(spec.replicas, spec.autoscaling.max_replicas if spec.autoscaling else 0)
    wanted = {DisruptionBudget.AUTO: most > 1, DisruptionBudget.ALWAYS: True, DisruptionBudget.NEVER: False}
    return wanted[spec.disruption_budget]


def budget(resource: Raw, spec: InferenceServiceSpec, role: str) -> Raw | None:
    """The PodDisruptionBudget (policy/v1), if there is to be one. Pods that do not answer hold up nobody."""
    if not is_budgeted(spec):
        return None
    keeps_the_last = spec.disruption_budget is DisruptionBudget.ALWAYS and spec.replicas == 1
    return {
        "apiVersion": "policy/v1",
        "kind": KIND,
        "metadata": child_metadata(resource, name_of(resource), role),
        "spec": {
            "selector": {"matchLabels": selector(resource, role)},
            "maxUnavailable": 0 if keeps_the_last else 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
