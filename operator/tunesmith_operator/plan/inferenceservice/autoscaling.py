"""The HorizontalPodAutoscaler of spec.autoscaling. It sets spec.replicas of the InferenceService through its scale subresource."""

from __future__ import annotations

from tunesmith_api import API_VERSION
from tunesmith_api.inferenceservice import Autoscaling, InferenceServiceSpec
from tunesmith_operator.plan.failures.hints import with_hint
from tunesmith_operator.plan.names import child_metadata, key_of, name_of
from tunesmith_operator.plan.phases import Reason
from tunesmith_operator.plan.pods.read import condition
from tunesmith_operator.plan.status.conditions import WantedCondition
from tunesmith_operator.plan.types import Observed, Raw

KIND = "HorizontalPodAutoscaler"
CONDITION = "AutoscalingActive"
DEFAULT_CPU_PERCENT = 80
INTENDED = frozenset({"ScalingDisabled"})
"""Reasons of ScalingActive: False that the spec requests, by no replicas."""
METRICS_HINT = (
    "install metrics-server (for CPU use) or an adapter for custom.metrics.k8s.io (for spec.autoscaling.metric), or remove "
    "spec.autoscaling and set spec.replicas"
)


def is_autoscaled(spec: InferenceServiceSpec) -> bool:
    """Whether the service has an autoscaler. It has none while suspended: pods without metrics would be an error."""
    return spec.autoscaling is not None and not spec.suspend


def autoscaler(resource: Raw, spec: InferenceServiceSpec, role: str) -> Raw | None:
    """The HorizontalPodAutoscaler (autoscaling/v2), if the service has one."""
    if spec.autoscaling is None or not is_autoscaled(spec):
        return None
    return {
        "apiVersion": "autoscaling/v2",
        "kind": KIND,
        "metadata": child_metadata(resource, name_of(resource), role),
        "spec": {
            "scaleTargetRef": {"apiVersion": API_VERSION, "kind": resource["kind"], "name": name_of(resource)},
            "minReplicas": spec.autoscaling.min_replicas,
            "maxReplicas": spec.autoscaling.max_replicas,
            "metrics": [_metric(spec.autoscaling)],
        },
    }


def autoscaling_conditions(
    resource: Raw, spec: InferenceServiceSpec, observed: Observed
) -> tuple[WantedCondition, ...]:
    """AutoscalingActive: whether the autoscaler works, by its own conditions."""
    if not is_autoscaled(spec):
        return ()
    if key_of(resource, KIND) in observed.foreign:
        text = f"{KIND} {name_of(resource)} exists and does not belong to this service"
        text = with_hint(text, "delete it, or remove spec.autoscaling")
        return (WantedCondition(CONDITION, False, "NameConflict", text),)
    existing = observed.autoscalers[0] if observed.autoscalers else {}
    conditions = [condition(existing, type_) for type_ in ("AbleToScale", "ScalingActive")]
    bad = next((found for found in conditions if found.get("status") == "False"), None)
    if bad:
        hint = METRICS_HINT if str(bad.get("reason")).endswith("Metric") else ""
        text = with_hint(f"{KIND} {name_of(resource)}: {bad.get('message') or bad.get('reason')}", hint)
        return (WantedCondition(CONDITION, False, str(bad.get("reason") or "Unknown"), text),)
    if not all(conditions):
        return (WantedCondition(CONDITION, None, Reason.STARTING, "the autoscaler has not reported yet"),)
    reason = str(conditions[1].get("reason"))
    return (WantedCondition(CONDITION, True, reason, "the autoscaler reads its metric and sets spec.replicas"),)


def autoscaling_trouble(conditions: tuple[WantedCondition, ...]) -> str | None:
    """Why the autoscaler does not work, for the service's message."""
    own = (condition for condition in conditions if condition.type == CONDITION and condition.status is False)
    return next((f"autoscaling does not work: {found.message}" for found in own if found.reason not in INTENDED), None)


def _metric(autoscaling: Autoscaling) -> Raw:
    if autoscaling.metric:
        target = {"type": "AverageValue", "averageValue": str(autoscaling.metric.average)}
        return {"type": "Pods", "pods": {"metric": {"name": autoscaling.metric.name}, "target": target}}
    percent = autoscaling.target_cpu_percent or DEFAULT_CPU_PERCENT
    return {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}},
    }
