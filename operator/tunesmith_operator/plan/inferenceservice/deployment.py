"""The Deployment and the Service of an InferenceService."""

from __future__ import annotations

from math import ceil

from tunesmith_api.base import parse_duration
from tunesmith_api.inferenceservice import InferenceServiceSpec, RolloutStrategy
from tunesmith_api.run import ENGINE_PORT
from tunesmith_operator.plan.inferenceservice.pod import ROLE
from tunesmith_operator.plan.names import child_metadata, name_of, selector
from tunesmith_operator.plan.types import Raw

STRATEGIES: dict[RolloutStrategy, Raw] = {
    RolloutStrategy.SURGE: {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
    RolloutStrategy.RECREATE: {"type": "Recreate"},
}


def deployment(resource: Raw, spec: InferenceServiceSpec, template: Raw) -> Raw:
    """The Deployment of the version with this pod template."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": child_metadata(resource, name_of(resource), ROLE),
        "spec": {
            "replicas": 0 if spec.suspend else spec.replicas,
            "selector": {"matchLabels": selector(resource, ROLE)},
            "strategy": STRATEGIES[spec.rollout.strategy],
            "progressDeadlineSeconds": max(ceil(parse_duration(spec.rollout.ready_timeout)), 1),
            "revisionHistoryLimit": 2,
            "template": template,
        },
    }


def service(resource: Raw) -> Raw:
    """The Service, which maps port 80 to the engine's port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(resource, name_of(resource), ROLE),
        "spec": {
            "selector": selector(resource, ROLE),
            "ports": [{"name": "http", "port": 80, "targetPort": ENGINE_PORT, "protocol": "TCP"}],
        },
    }
