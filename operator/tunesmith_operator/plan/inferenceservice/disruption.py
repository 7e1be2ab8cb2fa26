"""The PodDisruptionBudget of a service: a drain evicts one pod at a time."""

from __future__ import annotations

from tunesmith_api.inferenceservice import DisruptionBudget, InferenceServiceSpec
from tunesmith_operator.plan.failures.hints import with_hint
from tunesmith_operator.plan.names import child_metadata, key_of, name_of, selector
from tunesmith_operator.plan.types import Observed, Raw

KIND = "PodDisruptionBudget"


def is_budgeted(spec: InferenceServiceSpec) -> bool:
    """Whether the service has a budget. A single pod has none: its node could never be drained."""
    if spec.suspend or spec.replicas == 0 or spec.disruption_budget is DisruptionBudget.NEVER:
        return False
    return max(spec.replicas, spec.autoscaling.max_replicas if spec.autoscaling else 0) > 1


def budget(resource: Raw, spec: InferenceServiceSpec, role: str) -> Raw | None:
    """The PodDisruptionBudget (policy/v1), if the service has one. Pods that are not ready can always be evicted."""
    if not is_budgeted(spec):
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": KIND,
        "metadata": child_metadata(resource, name_of(resource), role),
        "spec": {
            "selector": {"matchLabels": selector(resource, role)},
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def budget_trouble(resource: Raw, spec: InferenceServiceSpec, observed: Observed) -> str | None:
    """Why the service has no budget although it should, for its message. The service answers all the same."""
    if is_budgeted(spec) and key_of(resource, KIND) in observed.foreign - observed.former:
        return with_hint(
            f"{KIND} {name_of(resource)} exists and does not belong to this service, which therefore has none",
            "set spec.disruptionBudget: Never if it selects this service's pods, otherwise delete it",
        )
    return None
