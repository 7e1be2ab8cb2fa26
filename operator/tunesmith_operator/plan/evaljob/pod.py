"""The pod of an EvalJob's attempt: fetch, then the engine as a sidecar beside the evaluation."""

from __future__ import annotations

from tunesmith_api.engines import resolve_engine
from tunesmith_api.evaljob import EvalJobSpec
from tunesmith_api.run import READY_PORT, Verb
from tunesmith_api.run_spec import run_spec
from tunesmith_operator.plan.jobs.kind import NewAttempt
from tunesmith_operator.plan.names import labels
from tunesmith_operator.plan.pods import engines
from tunesmith_operator.plan.pods.cache import with_cache
from tunesmith_operator.plan.pods.storage import resolve as resolve_storage
from tunesmith_operator.plan.pods.template import PodPlan, Stage, http_probe

STARTUP_PERIOD, STARTUP_FAILURES = 2, 1800
"""The engine has an hour to load its model. A crash loop ends the attempt earlier."""


def plan_pod(attempt: NewAttempt[EvalJobSpec]) -> PodPlan:
    """The pod that scores the model of a role."""
    resource, spec, config = attempt.resource, attempt.spec, attempt.config
    access = resolve_storage(spec.storage, config.store)
    previous = (resource.get("status") or {}).get("engine")  # scores of different engines are not comparable
    images = config.images_on(spec.resources.accelerator)
    engine = resolve_engine(spec.engine, spec.resources.accelerator, engines.installed(images), previous)
    run = run_spec(
        resource,
        spec,
        attempt.models,
        access.store,
        engine=engine,
        attempt=attempt.number,
        role=attempt.role.status_name,
        progress_url=config.progress_url,
        hub=config.hub.for_pods,
    )
    sidecar = {
        "restartPolicy": "Always",
        "startupProbe": http_probe("/ready", READY_PORT, STARTUP_PERIOD, STARTUP_FAILURES),
    }
    serve = Stage(Verb.SERVE, str(engines.image(engine, images)), computes=True, extra=sidecar)
    pod = PodPlan(
        init=(Stage(Verb.FETCH, images.runtime), serve),
        main=Stage(Verb.EVALUATE, images.runtime, light=True),
        run=run,
        resources=spec.resources,
        accelerator=config.accelerator(spec.resources.accelerator),
        plain_image=config.images.runtime,
        settings=spec.pod,
        access=access,
        hub_token_secret=config.hub.token_secret,
        pull_policy=config.images.pull_policy,
        labels=labels(resource, attempt.role.label),
        restart_policy="Never",
    )
    return with_cache(pod, config.cache)
