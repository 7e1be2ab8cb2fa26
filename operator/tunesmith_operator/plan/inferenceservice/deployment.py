"""The Deployment and the Service of an InferenceService."""

from __future__ import annotations

from math import ceil

from tunesmith_api.base import parse_duration
from tunesmith_api.engines import resolve_engine
from tunesmith_api.hashing import digest
from tunesmith_api.inferenceservice import InferenceServiceSpec, RolloutStrategy
from tunesmith_api.run import ENGINE_PORT, READY_PORT, NamedAdapter, ResolvedModel, Verb
from tunesmith_api.run_spec import run_spec
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.names import (
    VERSION_ANNOTATION,
    child_metadata,
    labels,
    name_of,
    selector,
)
from tunesmith_operator.plan.pods import engines
from tunesmith_operator.plan.pods.storage import resolve as resolve_storage
from tunesmith_operator.plan.pods.template import PodPlan, Stage, build_template, http_probe
from tunesmith_operator.plan.types import Raw

ROLE = "serve"
STARTUP_PERIOD = 5
STRATEGIES: dict[RolloutStrategy, Raw] = {
    RolloutStrategy.SURGE: {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
    RolloutStrategy.RECREATE: {"type": "Recreate"},
}


def pod_template(
    resource: Raw,
    spec: InferenceServiceSpec,
    model: ResolvedModel,
    adapters: list[NamedAdapter],
    config: OperatorConfig,
) -> Raw:
    """The pods of a version: fetch, then serve. Its hash is the version, in an annotation."""
    access = resolve_storage(spec.storage, config.store)
    engine = resolve_engine(spec.engine, spec.resources.accelerator, engines.installed(config.images))
    run = run_spec(resource, spec, model, access.store, adapters=adapters, engine=engine)
    made = build_template(
        PodPlan(
            init=(Stage(Verb.FETCH, config.images.runtime),),
            main=Stage(Verb.SERVE, str(engines.image(engine, config.images)), computes=True, extra=_serving(spec)),
            run=run,
            resources=spec.resources,
            settings=spec.pod,
            access=access,
            pull_policy=config.images.pull_policy,
            labels=labels(resource, ROLE),
            restart_policy="Always",
            api_key_secret=spec.api_key_secret,
        )
    )
    made["spec"]["terminationGracePeriodSeconds"] = spec.drain_seconds
    made["metadata"]["annotations"][VERSION_ANNOTATION] = digest(made)[:12]
    return made


def deployment(resource: Raw, spec: InferenceServiceSpec, pods: Raw) -> Raw:
    """The Deployment; `pods` is the template of the version to serve."""
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
            "template": pods,
        },
    }


def service(resource: Raw) -> Raw:
    """The Service: port 80 to the engine's."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(resource, name_of(resource), ROLE),
        "spec": {
            "selector": selector(resource, ROLE),
            "ports": [{"name": "http", "port": 80, "targetPort": ENGINE_PORT, "protocol": "TCP"}],
        },
    }


def _serving(spec: InferenceServiceSpec) -> Raw:
    patience = max(ceil(parse_duration(spec.rollout.ready_timeout) / STARTUP_PERIOD), 1)
    return {
        "ports": [{"name": "http", "containerPort": ENGINE_PORT, "protocol": "TCP"}],
        "startupProbe": http_probe("/ready", READY_PORT, STARTUP_PERIOD, patience),
        "readinessProbe": http_probe("/ready", READY_PORT, 5, 3),
        "livenessProbe": http_probe("/health", ENGINE_PORT, 10, 6),
    }
