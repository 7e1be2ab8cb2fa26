"""The pod template of a version: fetch, then serve. Its hash is the name of the version."""

from __future__ import annotations

from math import ceil

from tunesmith_api.base import parse_duration
from tunesmith_api.engines import resolve_engine
from tunesmith_api.hashing import digest
from tunesmith_api.inferenceservice import InferenceServiceSpec
from tunesmith_api.run import ENGINE_PORT, READY_PORT, NamedAdapter, ResolvedModel, Verb, models_by_role
from tunesmith_api.run_spec import run_spec
from tunesmith_operator.plan.config import HubDefaults, OperatorConfig
from tunesmith_operator.plan.names import VERSION_ANNOTATION, labels
from tunesmith_operator.plan.pods import engines
from tunesmith_operator.plan.pods.cache import with_cache
from tunesmith_operator.plan.pods.storage import resolve as resolve_storage
from tunesmith_operator.plan.pods.template import PodPlan, Stage, build_template, http_probe
from tunesmith_operator.plan.types import Raw

ROLE = "serve"
STARTUP_PERIOD = 5
"""Seconds between two startup probes."""


def pod_template(
    resource: Raw,
    spec: InferenceServiceSpec,
    model: ResolvedModel,
    adapters: list[NamedAdapter],
    config: OperatorConfig,
) -> Raw:
    """The template of the version that serves `model` with `adapters`, with the version in an annotation."""
    access = resolve_storage(spec.storage, config.store)
    images = config.images_on(spec.resources.accelerator)
    engine = resolve_engine(spec.engine, spec.resources.accelerator, engines.installed(images))
    hub = _hub_settings(config, [model, *(adapter.model for adapter in adapters)])
    run = run_spec(
        resource, spec, models_by_role(model), access.store, adapters=adapters, engine=engine, hub=hub.for_pods
    )
    serve = Stage(Verb.SERVE, str(engines.image(engine, images)), computes=True, extra=_ports_and_probes(spec))
    pod = PodPlan(
        init=(Stage(Verb.FETCH, images.runtime),),
        main=serve,
        run=run,
        resources=spec.resources,
        accelerator=config.accelerator(spec.resources.accelerator),
        plain_image=config.images.runtime,
        settings=spec.pod,
        access=access,
        hub_token_secret=hub.token_secret,
        pull_policy=config.images.pull_policy,
        labels=labels(resource, ROLE),
        restart_policy="Always",
        api_key_secret=spec.api_key_secret,
    )
    template = build_template(with_cache(pod, config.cache))
    template["spec"]["terminationGracePeriodSeconds"] = spec.drain_seconds
    template["metadata"]["annotations"][VERSION_ANNOTATION] = digest(template)[:12]
    return template


def _hub_settings(config: OperatorConfig, models: list[ResolvedModel]) -> HubDefaults:
    """The hubs' settings for a version: defaults if no model can come from a hub, as other settings would roll it out again."""
    uses_hubs = any(each.is_on_hub or each.is_named for model in models for each in model.with_bases())
    return config.hub if uses_hubs else HubDefaults()


def _ports_and_probes(spec: InferenceServiceSpec) -> Raw:
    startup_failures = max(ceil(parse_duration(spec.rollout.ready_timeout) / STARTUP_PERIOD), 1)
    return {
        "ports": [{"name": "http", "containerPort": ENGINE_PORT, "protocol": "TCP"}],
        "startupProbe": http_probe("/ready", READY_PORT, STARTUP_PERIOD, startup_failures),
        "readinessProbe": http_probe("/ready", READY_PORT, 5, 3),
        "livenessProbe": http_probe("/health", ENGINE_PORT, 10, 6),
    }
