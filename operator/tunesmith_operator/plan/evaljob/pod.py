"""The pod of an EvalJob's attempt: fetch, then the engine as a sidecar beside the evaluation."""

from __future__ import annotations

from tunesmith_api.engines import resolve_engine
from tunesmith_api.evaljob import EvalJobSpec
from tunesmith_api.hashing import spec_hash
from tunesmith_api.run import READY_PORT, RunSpec, Verb, models_by_role
from tunesmith_operator.plan.evaljob.roles import KIND
from tunesmith_operator.plan.jobs.kind import NewAttempt
from tunesmith_operator.plan.names import labels, name_of, namespace_of, uid_of
from tunesmith_operator.plan.pods import engines
from tunesmith_operator.plan.pods.storage import resolve as resolve_storage
from tunesmith_operator.plan.pods.template import PodPlan, Stage, http_probe
from tunesmith_operator.plan.types import Raw

STARTUP_PERIOD, STARTUP_FAILURES = 2, 1800
"""The engine has an hour to load its model. A crash loop ends the attempt earlier."""
NOT_SCORING = frozenset({"model", "baseline", "gates"})
"""Fields of the spec that don't affect how a model is scored."""


def plan_pod(attempt: NewAttempt[EvalJobSpec]) -> PodPlan:
    """The pod that scores the model of a role."""
    resource, spec, config = attempt.resource, attempt.spec, attempt.config
    access = resolve_storage(spec.storage, config.store)
    previous = (resource.get("status") or {}).get("engine")  # scores of different engines are not comparable
    engine = resolve_engine(spec.engine, spec.resources.accelerator, engines.installed(config.images), previous)
    data = {**spec.to_dict(), "engine": str(engine)}
    run = RunSpec(
        kind=KIND,
        name=name_of(resource),
        namespace=namespace_of(resource),
        uid=uid_of(resource),
        attempt=attempt.number,
        role=attempt.role.status_name,
        spec=data,
        spec_hash=_scoring_hash(data),
        store=access.store,
        models=models_by_role(attempt.model),
        output_uri=spec.output.uri or f"{access.store.uri}/evals",
        progress_url=config.progress_url,
    )
    sidecar = {
        "restartPolicy": "Always",
        "startupProbe": http_probe("/ready", READY_PORT, STARTUP_PERIOD, STARTUP_FAILURES),
    }
    serve = Stage(Verb.SERVE, str(engines.image(engine, config.images)), computes=True, extra=sidecar)
    return PodPlan(
        init=(Stage(Verb.FETCH, config.images.runtime), serve),
        main=Stage(Verb.EVALUATE, config.images.runtime, light=True),
        run=run,
        resources=spec.resources,
        settings=spec.pod,
        access=access,
        pull_policy=config.images.pull_policy,
        labels=labels(resource, attempt.role.label),
        restart_policy="Never",
    )


def _scoring_hash(spec: Raw) -> str:
    """Hash of how a model is scored, whichever it is: EvalJobs that score alike share the scores of a baseline."""
    return spec_hash(KIND, {name: value for name, value in spec.items() if name not in NOT_SCORING})
